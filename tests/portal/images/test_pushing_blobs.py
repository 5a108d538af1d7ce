"""Blobs into the registry: every way of the specification, and what strangers and liars try."""

from __future__ import annotations

import datetime as dt
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.utils import timezone

from portal.hosting.models import App
from portal.images import pushing
from portal.images.blobs import BlobStore
from portal.images.models import Blob, BlobClaim, BlobUpload
from portal.images.store import pushes_dir
from portal.plans.models import TeamQuota
from tests.conftest import People
from tests.portal.images.registries import Pusher, code, digest_of, registry

pytestmark = pytest.mark.django_db(transaction=True)

DATA = os.urandom(300_000)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def pusher(url: str, people: People, app: App, store: BlobStore) -> Iterator[Pusher]:
    """The developer's client for acme/shop."""
    with Pusher(url, people.token(people.developer, "deploy")) as client:
        yield client
    BlobUpload.objects.all().delete()
    for file in pushes_dir().iterdir():
        file.unlink()


def test_one_post_takes_a_whole_blob(pusher: Pusher, store: BlobStore) -> None:
    answer = pusher.call("POST", f"/blobs/uploads/?digest={digest_of(DATA)}", DATA)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v2/acme/shop/blobs/{digest_of(DATA)}"
    assert answer.headers["docker-content-digest"] == digest_of(DATA)
    assert pusher.call("GET", answer.headers["location"]).content == DATA
    assert pusher.call("HEAD", f"/blobs/{digest_of(DATA)}").headers["content-length"] == str(len(DATA))
    assert store.read(digest_of(DATA)) == DATA
    assert (list(pushes_dir().iterdir()), BlobUpload.objects.count()) == ([], 0)


def test_a_post_and_a_put_take_a_whole_blob(pusher: Pusher) -> None:
    address = pusher.begin()
    answer = pusher.call("PUT", f"{address}?digest={digest_of(DATA)}", DATA)
    assert answer.status_code == 201
    assert pusher.call("GET", f"/blobs/{digest_of(DATA)}").content == DATA
    assert code(pusher.call("GET", address)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_stream_without_a_length_and_an_empty_put_is_how_docker_pushes(pusher: Pusher) -> None:
    address = pusher.begin()
    pieces = (DATA[start : start + 70_000] for start in range(0, len(DATA), 70_000))
    answer = pusher.http.patch(address, content=pieces)
    assert (answer.status_code, answer.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    assert BlobUpload.objects.get().digest == digest_of(DATA)  # the last request need not read it again, in any process
    assert pusher.call("PUT", f"{answer.headers['location']}?digest={digest_of(DATA)}").status_code == 201


def test_chunks_with_ranges_come_in_order(pusher: Pusher) -> None:
    address = pusher.begin()
    assert pusher.call("GET", address).headers["range"] == "0-0"
    first = pusher.call("PATCH", address, DATA[:1000], Content_Range="0-999")
    assert (first.status_code, first.headers["range"], first.headers["location"]) == (202, "0-999", address)
    state = pusher.call("GET", address)
    assert (state.status_code, state.headers["range"]) == (204, "0-999")
    last = pusher.call("PUT", f"{address}?digest={digest_of(DATA)}", DATA[1000:], Content_Range=f"1000-{len(DATA) - 1}")
    assert last.status_code == 201, last.text


@pytest.mark.parametrize("wrong", ["2000-2999", "0-999", "999-1998", "1000", "-5", "1999-1000", "x-y", "1" * 30 + "-2"])
def test_a_chunk_out_of_order_is_told_how_far_the_upload_is(pusher: Pusher, wrong: str) -> None:
    address = pusher.begin()
    pusher.call("PATCH", address, DATA[:1000], Content_Range="0-999")
    answer = pusher.call("PATCH", address, DATA[:1000], Content_Range=wrong)
    assert code(answer) == (416, "BLOB_UPLOAD_INVALID")
    assert (answer.headers["range"], answer.headers["location"]) == ("0-999", address)
    assert pusher.call("GET", address).headers["range"] == "0-999"


def test_a_chunk_of_another_length_than_announced_is_taken_back(pusher: Pusher) -> None:
    address = pusher.begin()
    assert code(pusher.call("PATCH", address, DATA[:1000], Content_Range="0-998")) == (400, "SIZE_INVALID")
    short = pusher.http.patch(address, content=iter([DATA[:500]]), headers={"Content-Range": "0-999"})
    assert code(short) == (400, "SIZE_INVALID")
    more = pusher.http.patch(address, content=iter([DATA[:5000]]), headers={"Content-Range": "0-999"})
    assert code(more) == (400, "SIZE_INVALID")
    assert pushes_dir().joinpath(BlobUpload.objects.get().pk.hex).stat().st_size == 0
    assert pusher.call("PUT", f"{address}?digest={digest_of(DATA)}", DATA).status_code == 201


def test_a_wrong_digest_is_refused_and_nothing_stays(pusher: Pusher, store: BlobStore) -> None:
    for answer in (
        pusher.call("POST", f"/blobs/uploads/?digest={digest_of(b'other')}", DATA),
        pusher.call("PUT", f"{pusher.begin()}?digest={digest_of(b'other')}", DATA),
    ):
        assert code(answer) == (400, "DIGEST_INVALID")
        assert digest_of(DATA) in answer.text
    for digest in ("", "sha256:abc", "md5:1", f"sha256:{'0' * 64}/../x", "sha512:" + "0" * 128):
        assert code(pusher.call("PUT", f"{pusher.begin()}?digest={digest}", b"x")) == (400, "DIGEST_INVALID")
    assert list(store.digests()) == []
    assert Blob.objects.count() == 0


def test_a_cut_upload_goes_on_and_only_the_rest_is_sent(pusher: Pusher, url: str) -> None:
    data = os.urandom(8 << 20)
    address, half = pusher.begin(), len(data) // 2
    host, port = url.removeprefix("http://").split(":")
    authorization = pusher.http.build_request("GET", "/").headers
    request = next(iter([pusher.http.auth])) and next(pusher.http.auth.auth_flow(pusher.http.build_request("GET", "/")))  # type: ignore[union-attr]
    authorization = request.headers["authorization"]
    with socket.create_connection((host, int(port))) as cut:
        lines = [
            f"PATCH {address} HTTP/1.1",
            f"Host: {host}",
            f"Content-Length: {len(data)}",
            f"Authorization: {authorization}",
        ]
        cut.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data[:half])
        await_size(address, half - pushing.READ_BYTES * 4)
    have = settled(pusher, address)
    assert half - (256 << 10) <= have <= half  # no more is lost than what was not read
    sent = data[have:]
    answer = pusher.call("PATCH", address, sent, Content_Range=f"{have}-{len(data) - 1}")
    assert answer.status_code == 202, answer.text
    assert pusher.call("PUT", f"{address}?digest={digest_of(data)}").status_code == 201
    assert pusher.call("GET", f"/blobs/{digest_of(data)}").content == data


def await_size(address: str, size: int) -> None:
    """Until so many bytes of an upload are in its file."""
    file = pushes_dir() / address.rpartition("/")[2].replace("-", "")
    deadline = time.monotonic() + 10
    while file.stat().st_size < size:
        assert time.monotonic() < deadline, f"{file.stat().st_size} of {size} bytes came"
        time.sleep(0.005)


def settled(pusher: Pusher, address: str) -> int:
    """How far an upload is once the cut request has ended: an empty chunk is taken then."""
    deadline = time.monotonic() + 10
    while pusher.call("PATCH", address).status_code != 202:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return int(pusher.call("GET", address).headers["range"].removeprefix("0-")) + 1


def test_a_hash_that_another_process_has_is_made_anew(pusher: Pusher) -> None:
    from portal.images import receiving

    address = pusher.begin()
    pusher.call("PATCH", address, DATA[:1000])
    receiving._hashes.clear()
    pusher.call("PATCH", address, DATA[1000:2000])
    assert BlobUpload.objects.get().hashed_bytes == 1000
    assert pusher.call("PUT", f"{address}?digest={digest_of(DATA)}", DATA[2000:]).status_code == 201


def test_an_upload_is_cancelled(pusher: Pusher) -> None:
    address = pusher.begin()
    pusher.call("PATCH", address, DATA)
    assert pusher.call("DELETE", address).status_code == 204
    assert list(pushes_dir().iterdir()) == []
    for method in ("GET", "PATCH", "DELETE"):
        assert code(pusher.call(method, address)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert code(pusher.call("GET", "/blobs/uploads/" + "0" * 32)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_two_requests_cannot_write_to_one_upload(pusher: Pusher) -> None:
    address = pusher.begin()
    with pushing.locked(BlobUpload.objects.get()):
        assert code(pusher.call("PATCH", address, b"x")) == (409, "BLOB_UPLOAD_INVALID")
    assert pusher.call("PATCH", address, b"x").status_code == 202


def test_pushes_that_are_given_up_are_swept(pusher: Pusher) -> None:
    pusher.call("PATCH", pusher.begin(), DATA)
    stray = pushes_dir() / "stray"
    stray.write_bytes(b"")
    os.utime(stray, (0, 0))
    assert pushing.sweep() == 1
    BlobUpload.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert pushing.sweep() == 1
    assert (list(pushes_dir().iterdir()), BlobUpload.objects.count()) == ([], 0)


def test_the_team_quota_refuses_before_and_during_an_upload_with_figures(pusher: Pusher, people: People) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"image_bytes": 1_000_000})
    address = pusher.begin()
    before = pusher.call("PATCH", address, bytes(1_000_001))
    assert code(before) == (413, "DENIED")
    assert "may hold 1 MB of images" in before.text
    endless = pusher.http.patch(address, content=(bytes(100_000) for _ in range(30)))
    assert code(endless) == (413, "DENIED")
    assert BlobUpload.objects.get().reserved_bytes <= 1_000_000
    assert pusher.call("DELETE", address).status_code == 204
    assert pusher.call("PATCH", pusher.begin(), bytes(600_000)).status_code == 202
    assert code(pusher.call("PATCH", pusher.begin(), bytes(600_000))) == (413, "DENIED")  # the first one has its bytes
    assert code(pusher.call("POST", f"/blobs/uploads/?digest={digest_of(DATA)}", DATA * 2)) == (413, "DENIED")


def test_a_disk_that_cannot_hold_it_is_said_at_once(pusher: Pusher, people: People) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"image_bytes": 1 << 50})
    upload = BlobUpload.objects.get(pk=pusher.begin().rpartition("/")[2])
    from portal.images.faults import NoSpace

    with pytest.raises(NoSpace, match=r"disk has .* left"):
        pushing.reserve(upload, 1 << 39)


def test_a_blob_is_mounted_from_where_the_caller_may_pull(
    pusher: Pusher, people: People, plans: dict[str, object]
) -> None:
    from portal.plans.models import Plan

    App.objects.create(team=people.team, slug="other", plan=Plan.objects.get(slug="nano"))
    digest = pusher.blob(DATA)
    with Pusher(str(pusher.http.base_url), people.token(people.developer, "deploy"), "acme/other") as other:
        assert other.call("HEAD", f"/blobs/{digest}").status_code == 404
        mounted = other.call("POST", f"/blobs/uploads/?mount={digest}&from=acme/shop")
        assert (mounted.status_code, mounted.headers["location"]) == (201, f"/v2/acme/other/blobs/{digest}")
        assert other.call("GET", f"/blobs/{digest}").content == DATA
        unknown = other.call("POST", f"/blobs/uploads/?mount={digest_of(b'nothing')}&from=acme/shop")
        assert unknown.status_code == 202
        assert unknown.headers["location"].startswith("/v2/acme/other/blobs/uploads/")


def test_a_mount_without_rights_begins_an_upload_and_tells_nothing(pusher: Pusher, people: People) -> None:
    from portal.plans.models import Plan

    digest = pusher.blob(DATA)
    App.objects.create(team=people.stranger.teams.get(), slug="theirs", plan=Plan.objects.get(slug="nano"))
    with Pusher(str(pusher.http.base_url), people.token(people.stranger, "deploy"), "strangers/theirs") as other:
        for source in ("acme/shop", "acme/nothing", "no/thing", "../shop", ""):
            answer = other.call("POST", f"/blobs/uploads/?mount={digest}&from={source}")
            assert answer.status_code == 202, source
            assert answer.headers["range"] == "0-0"
        assert other.call("HEAD", f"/blobs/{digest}").status_code == 404
    narrow = people.token(people.developer, "deploy", app="shop")
    with Pusher(str(pusher.http.base_url), narrow) as held:  # a token of one app pulls from no other one
        assert held.call("POST", f"/blobs/uploads/?mount={digest}&from=acme/other").status_code == 202


def test_a_blob_is_deleted_unless_a_manifest_needs_it(pusher: Pusher, people: People) -> None:
    with Pusher(str(pusher.http.base_url), people.token(people.maintainer, "write")) as maintainer:
        digest = pusher.blob(DATA)
        assert code(pusher.call("DELETE", f"/blobs/{digest}")) == (403, "DENIED")  # a developer pushes, no more
        assert maintainer.call("DELETE", f"/blobs/{digest}").status_code == 202
        assert code(maintainer.call("DELETE", f"/blobs/{digest}")) == (404, "BLOB_UNKNOWN")
        pusher.image(layer=DATA)
        assert code(maintainer.call("DELETE", f"/blobs/{digest}")) == (405, "UNSUPPORTED")


def test_a_pushed_blob_counts_for_the_team_and_goes_when_no_manifest_follows(pusher: Pusher, people: People) -> None:
    from portal.images import collect, quota

    pusher.blob(DATA)
    assert quota.used_bytes(people.team) == len(DATA)
    collect.collect(grace_s=0)
    assert pusher.call("HEAD", f"/blobs/{digest_of(DATA)}").status_code == 200
    BlobClaim.objects.update(until=timezone.now())
    collect.collect(grace_s=0)
    assert pusher.call("HEAD", f"/blobs/{digest_of(DATA)}").status_code == 404
    assert quota.used_bytes(people.team) == 0


def test_a_large_blob_needs_little_memory(pusher: Pusher) -> None:
    pusher.call("PATCH", pusher.begin(), bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = bytes(1 << 20)
    with suppress(StopIteration):
        answer = pusher.http.patch(pusher.begin(), content=(piece for _ in range(160)))
    assert answer.status_code == 202
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 40_000
