"""tus 1.0 over a real server: what a browser on a bad line does, and what strangers try."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from portal.hosting.access import get_app
from portal.hosting.models import App
from portal.images import uploads
from portal.images.asgi import UploadsApp
from portal.images.blobs import BlobStore
from portal.images.models import Image, Upload
from portal.images.store import uploads_dir
from portal.plans.models import TeamQuota
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)

UPLOADS = "/api/v1/uploads"
CHUNK = {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The uploads door on a port."""
    with serving(UploadsApp(lambda actor, slug: get_app(actor, slug, "deploy"))) as made:
        yield made


@pytest.fixture
def http(url: str, people: People, app: App, store: BlobStore) -> Iterator[httpx.Client]:
    """A client with the developer's token."""
    with httpx.Client(base_url=url, headers=bearer(people.token(people.developer, "deploy"))) as client:
        yield client
    Upload.objects.all().delete()
    for file in uploads_dir().iterdir():
        file.unlink()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def begin(http: httpx.Client, size: int, app: str = "shop", **headers: str) -> httpx.Response:
    metadata = f"app {encoded(app)},filename {encoded('shop.tar')}"
    return http.post(UPLOADS, headers={"Upload-Length": str(size), "Upload-Metadata": metadata, **headers})


def patch(http: httpx.Client, address: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    return http.patch(address, content=data, headers={**CHUNK, "Upload-Offset": str(offset), **headers})


def test_an_upload_in_chunks_becomes_an_image(http: httpx.Client, store: BlobStore) -> None:
    data, step = archives.demo(), 400_000
    made = begin(http, len(data))
    assert made.status_code == 201
    assert "Upload-Expires" in made.headers
    address = made.headers["Location"]
    for offset in range(0, len(data), step):
        head = http.head(address)
        assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (str(offset), str(len(data)))
        answer = patch(http, address, offset, data[offset : offset + step])
        assert answer.status_code == 204, answer.text
    image = Image.objects.get(pk=answer.headers["Moorage-Image"])
    assert image.digest == answer.headers["Moorage-Image-Digest"]
    state = http.get(address).json()
    assert state["state"] == "done"
    assert state["image"]["config"]["port"] == 8080
    assert http.head(address).headers["Upload-Offset"] == str(len(data))
    assert list(uploads_dir().iterdir()) == []


def test_an_upload_goes_on_after_the_connection_was_cut(http: httpx.Client, url: str) -> None:
    data = archives.demo(size_mb=2)
    address = begin(http, len(data)).headers["Location"]
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as cut:
        lines = [f"PATCH {address} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(data)}", "Upload-Offset: 0"]
        lines += [f"{name}: {value}" for name, value in CHUNK.items()]
        lines += [f"{name}: {http.headers[name]}" for name in ("Authorization", "Tus-Resumable")]
        cut.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data[:1_000_000])
        await_bytes(uploads_dir() / address.rpartition("/")[2].replace("-", ""))
    have = resumed_at(http, address)
    assert 0 < have <= 1_000_000
    answer = patch(http, address, have, data[have:])
    assert answer.status_code == 204, answer.text
    assert http.get(address).json()["state"] == "done"


def await_bytes(path: Path) -> None:
    """Until the server has written something of an upload: a connection cut before that proves nothing."""
    deadline = time.monotonic() + 10
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline, f"{path} stays empty"
        time.sleep(0.005)


def resumed_at(http: httpx.Client, address: str) -> int:
    """The offset once the cut request has ended: as tus clients do, by asking until the upload is not busy."""
    while True:
        have = int(http.head(address).headers["Upload-Offset"])
        if patch(http, address, have, b"").status_code == 204:
            return have


def test_a_chunk_at_another_offset_is_a_conflict(http: httpx.Client) -> None:
    address = begin(http, 1000).headers["Location"]
    assert patch(http, address, 0, b"x" * 10).status_code == 204
    answer = patch(http, address, 0, b"x" * 10)
    assert answer.status_code == 409
    assert "has 10 bytes; this chunk begins at 0" in answer.json()["detail"]
    assert patch(http, address, 10, b"x" * 991).status_code == 422


def test_two_requests_cannot_write_to_one_upload(http: httpx.Client) -> None:
    address = begin(http, 1000).headers["Location"]
    with uploads.locked(Upload.objects.get()):
        assert patch(http, address, 0, b"x").status_code == 423
    assert patch(http, address, 0, b"x").status_code == 204


def test_a_wrong_archive_is_refused_with_the_last_chunk_and_remembered(http: httpx.Client, store: BlobStore) -> None:
    data = archives.demo(architecture="arm64")
    address = begin(http, len(data)).headers["Location"]
    answer = patch(http, address, 0, data)
    assert answer.status_code == 422
    assert answer.json()["code"] == "image_refused"
    assert "linux/arm64" in answer.json()["detail"]
    state = http.get(address).json()
    assert state["state"] == "failed"
    assert "linux/arm64" in state["error"]
    assert list(store.digests()) == []
    assert list(uploads_dir().iterdir()) == []


def test_an_image_whose_last_answer_was_lost_is_finished_when_asked_for(http: httpx.Client) -> None:
    data = archives.demo()
    address = begin(http, len(data)).headers["Location"]
    assert patch(http, address, 0, data[:-1]).status_code == 204
    with uploads.file_of(Upload.objects.get()).open("ab") as file:  # as if the process died before it read the image
        file.write(data[-1:])
    state = http.get(address).json()
    assert (state["state"], state["offset_bytes"]) == ("done", len(data))


def test_asking_waits_for_the_request_that_reads_the_image(http: httpx.Client) -> None:
    data = archives.demo()
    address = begin(http, len(data)).headers["Location"]
    patch(http, address, 0, data[:-1])
    upload = Upload.objects.get()
    with uploads.file_of(upload).open("ab") as file:
        file.write(data[-1:])
    with ThreadPoolExecutor(1) as pool:
        with uploads.locked(upload):
            asked = pool.submit(lambda: http.get(address).json())
            with pytest.raises(TimeoutError):
                asked.result(0.3)
        assert asked.result(10)["state"] == "done"


def test_a_checksum_that_does_not_hold_takes_the_chunk_back(http: httpx.Client) -> None:
    address = begin(http, 1000).headers["Location"]
    digest = base64.b64encode(hashlib.sha256(b"right").digest()).decode()
    wrong = patch(http, address, 0, b"wrong", **{"Upload-Checksum": f"sha256 {digest}"})
    assert wrong.status_code == 460
    assert http.head(address).headers["Upload-Offset"] == "0"
    assert patch(http, address, 0, b"right", **{"Upload-Checksum": f"sha256 {digest}"}).status_code == 204


def test_an_upload_over_quota_is_refused_before_its_first_byte(http: httpx.Client, people: People) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"image_bytes": 10_000_000})
    answer = begin(http, 10_000_001)
    assert (answer.status_code, answer.json()["code"]) == (413, "over_quota")
    assert "may hold 10 MB" in answer.json()["detail"]
    assert begin(http, 6_000_000).status_code == 201
    assert begin(http, 6_000_000).status_code == 413  # the first one was promised its bytes


def test_uploads_under_way_have_a_number(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UNDER_WAY", 2)
    assert [begin(http, 10).status_code for _ in range(3)] == [201, 201, 409]
    assert http.delete(f"{UPLOADS}/{Upload.objects.all()[0].pk}").status_code == 204
    assert begin(http, 10).status_code == 201


def test_an_upload_that_the_disk_cannot_hold_is_refused_at_once(http: httpx.Client, people: People) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"image_bytes": 1 << 50})
    answer = begin(http, 1 << 40)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert "1.1 TB" not in answer.json()["detail"]  # what it needs is twice that
    assert "2.2 TB" in answer.json()["detail"]


def test_a_body_with_the_creation_is_taken(http: httpx.Client) -> None:
    metadata = f"app {encoded('shop')}"
    answer = http.post(UPLOADS, content=b"12345", headers={**CHUNK, "Upload-Length": "10", "Upload-Metadata": metadata})
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "5")


def test_terminating_and_expiring_remove_the_bytes(http: httpx.Client) -> None:
    address = begin(http, 1000).headers["Location"]
    patch(http, address, 0, b"x")
    assert http.delete(address).status_code == 204
    assert http.head(address).status_code == 404
    begin(http, 1000)
    assert len(list(uploads_dir().iterdir())) == 1
    Upload.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert uploads.sweep() == 1
    assert list(uploads_dir().iterdir()) == []


def test_only_who_may_deploy_uploads_and_only_who_began_goes_on(http: httpx.Client, people: People, url: str) -> None:
    address = begin(http, 1000).headers["Location"]

    def status(token: str) -> tuple[int, int]:
        with httpx.Client(base_url=url, headers=bearer(token)) as other:
            return begin(other, 10).status_code, patch(other, address, 0, b"x").status_code

    assert status(people.token(people.stranger, "write")) == (404, 404)
    assert status(people.token(people.viewer, "write")) == (403, 404)
    assert status(people.token(people.developer, "read")) == (403, 404)
    assert status(people.token(people.owner, "deploy")) == (201, 404)
    assert status(people.token(people.developer, "deploy", app="other")) == (404, 404)
    assert status("moor_unknown") == (401, 401)
    assert http.head(address).headers["Upload-Offset"] == "0"


def test_a_browser_needs_its_csrf_token(http: httpx.Client, member: Client, url: str) -> None:
    cookies = {"sessionid": member.cookies["sessionid"].value, "csrftoken": "a" * 32}
    with httpx.Client(base_url=url, cookies=cookies, headers={"Tus-Resumable": "1.0.0"}) as browser:
        assert begin(browser, 10).status_code == 403
        assert begin(browser, 10, **{"X-CSRFToken": "a" * 32}).status_code == 201


def test_the_protocol_version_is_checked_and_the_extensions_are_named(http: httpx.Client) -> None:
    assert begin(http, 10, **{"Tus-Resumable": "0.2.2"}).status_code == 412
    options = http.options(UPLOADS)
    assert options.status_code == 204
    assert "creation" in options.headers["Tus-Extension"]
    assert begin(http, 10, "shop", **{"Upload-Length": "ten"}).status_code == 422
    assert http.get(f"{UPLOADS}/not-a-number").status_code == 404
