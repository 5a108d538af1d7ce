"""Manifests, tags, artifacts and lists of the registry, by plain HTTP as the specification has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from portal.audit.models import Entry
from portal.hosting.models import App
from portal.images import collect, manifests
from portal.images.actions import receive_archive
from portal.images.blobs import BlobStore
from portal.images.models import Image, Tag
from portal.plans.models import Plan, TeamQuota
from portal.releases.models import Release
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.registries import (
    EMPTY,
    INDEX,
    OCI,
    Pusher,
    code,
    config_of,
    digest_of,
    entry,
    index_of,
    manifest_of,
    registry,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def pusher(url: str, people: People, app: App, store: BlobStore) -> Iterator[Pusher]:
    """The maintainer's client for acme/shop."""
    with Pusher(url, people.token(people.maintainer, "write")) as client:
        yield client


def test_a_pushed_image_is_like_an_uploaded_one(pusher: Pusher, people: People) -> None:
    run: dict[str, Any] = {"Cmd": ["/app"], "ExposedPorts": {"9000/tcp": {}}, "Env": ["SECRET=1"], "User": "1000"}
    manifest, answer = pusher.image("1.0", b"some layer", **run)
    assert answer.headers["location"] == f"/v2/acme/shop/manifests/{digest_of(manifest)}"
    assert answer.headers["docker-content-digest"] == digest_of(manifest)
    image = Image.objects.get()
    assert (image.kind, image.digest, image.reference, image.team) == (
        "image",
        digest_of(manifest),
        "shop:1.0",
        people.team,
    )
    assert (image.config["port"], image.config["command"], image.config["env_names"]) == (9000, ["/app"], ["SECRET"])
    assert image.config["user"] == "1000"
    assert image.size_bytes == sum(blob.size_bytes for blob in image.blobs.all())
    row = Entry.objects.get(verb="push")
    assert (row.object_name, row.door, row.user, row.details["tag"]) == ("acme/shop", "push", people.maintainer, "1.0")
    for reference in ("1.0", digest_of(manifest)):
        got = pusher.call("GET", f"/manifests/{reference}")
        assert (got.content, got.headers["content-type"]) == (manifest, OCI)
        head = pusher.call("HEAD", f"/manifests/{reference}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(manifest))


def test_a_manifest_is_refused_while_a_blob_is_not_in_its_repository(pusher: Pusher, people: People) -> None:
    layer = b"in another repository"
    config = config_of(layer)
    App.objects.create(team=people.team, slug="other", plan=Plan.objects.get(slug="nano"))
    with Pusher(str(pusher.http.base_url), people.token(people.maintainer, "write"), "acme/other") as other:
        other.blob(layer)
    pusher.blob(config)
    answer = pusher.put("1.0", manifest_of(config, layer))
    assert code(answer) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert digest_of(layer) in answer.text
    assert code(pusher.put("1.0", index_of(entry(b"no manifest", OCI)), INDEX)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert (Image.objects.count(), Tag.objects.count()) == (0, 0)


def broken(**change: Any) -> bytes:
    """A manifest over the empty configuration with something else."""
    return json.dumps(json.loads(manifest_of(b"{}", config_type=EMPTY, artifactType="x/y")) | change).encode()


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (b"not json", OCI),
        (b"[]", OCI),
        (b"{" * 100_000, OCI),
        (broken(schemaVersion=1), OCI),
        (broken(), INDEX),
        (broken(mediaType="text/plain"), "text/plain"),
        (broken(config=None), OCI),
        (broken(config={"mediaType": EMPTY, "digest": "sha256:1", "size": 2}), OCI),
        (broken(config={"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": -1}), OCI),
        (broken(config={"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 3}), OCI),
        (broken(layers="many"), OCI),
        (broken(layers=[{}] * 10_001), OCI),
        (broken(subject="a"), OCI),
        (broken(annotations={"a": 1}), OCI),
        (broken(manifests=[]), OCI),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_sentence(pusher: Pusher, manifest: bytes, kind: str) -> None:
    pusher.blob(b"{}")
    answer = pusher.put("1.0", manifest, kind)
    assert code(answer) == (400, "MANIFEST_INVALID")
    assert answer.json()["errors"][0]["message"].endswith((".", "!"))
    assert Image.objects.count() == 0


def test_a_manifest_has_a_largest_size(pusher: Pusher) -> None:
    large = broken(annotations={"a": "x" * manifests.MAX_BYTES})
    assert code(pusher.put("1.0", large)) == (413, "MANIFEST_INVALID")
    streamed = pusher.http.put("/v2/acme/shop/manifests/1.0", content=iter([large]), headers={"Content-Type": OCI})
    assert code(streamed) == (413, "MANIFEST_INVALID")


def test_references_are_checked(pusher: Pusher) -> None:
    pusher.blob(b"{}")
    assert code(pusher.put(digest_of(b"other"), broken())) == (400, "DIGEST_INVALID")
    assert code(pusher.put("sha256:abc", broken())) == (400, "DIGEST_INVALID")
    assert code(pusher.put("-x", broken())) == (400, "TAG_INVALID")
    assert code(pusher.put("x" * 129, broken())) == (400, "TAG_INVALID")
    for path in (
        "/manifests/..%2F..%2Fother",
        "/../../other/manifests/1.0",
        "/manifests/a/b",
        "/manifests/",
        "/blobs/uploads/..%2Fx",
    ):
        assert pusher.call("PUT", path, broken(), Content_Type=OCI).status_code in (404, 405), path
    assert pusher.put(digest_of(broken()), broken()).status_code == 201
    assert Tag.objects.count() == 0


def test_a_tag_moves_and_the_old_manifest_stays_under_its_digest(pusher: Pusher) -> None:
    first, _ = pusher.image("1.0", b"first")
    second, _ = pusher.image("1.0", b"second")
    assert pusher.call("GET", "/manifests/1.0").content == second
    assert pusher.call("GET", f"/manifests/{digest_of(first)}").content == first


def test_tags_and_repositories_are_listed_in_pages(pusher: Pusher, people: People) -> None:
    manifest, _ = pusher.image("b")
    for tag in ("c", "a", "d"):
        pusher.put(tag, manifest)
    assert pusher.call("GET", "/tags/list").json() == {"name": "acme/shop", "tags": ["a", "b", "c", "d"]}
    page = pusher.call("GET", "/tags/list?n=3")
    assert page.json()["tags"] == ["a", "b", "c"]
    assert page.headers["link"] == '</v2/acme/shop/tags/list?n=3&last=c>; rel="next"'
    last = pusher.call("GET", "/v2/acme/shop/tags/list?n=3&last=c")
    assert (last.json()["tags"], "link" in last.headers) == (["d"], False)
    assert pusher.call("GET", "/tags/list?n=0").json()["tags"] == []
    assert pusher.call("GET", "/tags/list?n=4").headers.get("link") is None
    for wrong in ("x", "-1", "1" * 12):
        assert pusher.call("GET", f"/tags/list?n={wrong}").status_code == 400
    head = pusher.call("HEAD", "/tags/list")
    assert (head.status_code, head.content) == (200, b"")
    assert pusher.call("GET", "/v2/_catalog").json() == {"repositories": ["acme/shop"]}
    with Pusher(str(pusher.http.base_url), people.token(people.stranger, "write"), "strangers/x") as stranger:
        assert stranger.call("GET", "/v2/_catalog").json() == {"repositories": []}
    with Pusher(str(pusher.http.base_url), people.token(people.viewer, "read", app="other")) as narrow:
        assert narrow.call("GET", "/v2/_catalog").json() == {"repositories": []}
    with Pusher(str(pusher.http.base_url), people.token(people.operator, "operator"), "acme/shop") as operator:
        assert operator.call("GET", "/v2/_catalog?n=1").json() == {"repositories": ["acme/shop"]}


def test_tags_and_manifests_are_deleted(pusher: Pusher, people: People) -> None:
    manifest, _ = pusher.image("1.0")
    pusher.put("2.0", manifest)
    with Pusher(str(pusher.http.base_url), people.token(people.developer, "deploy")) as developer:
        assert code(developer.call("DELETE", "/manifests/1.0")) == (403, "DENIED")
    assert pusher.call("DELETE", "/manifests/1.0").status_code == 202
    assert code(pusher.call("DELETE", "/manifests/1.0")) == (404, "MANIFEST_UNKNOWN")
    assert pusher.call("GET", "/manifests/2.0").status_code == 200
    assert pusher.call("DELETE", f"/manifests/{digest_of(manifest)}").status_code == 202
    assert code(pusher.call("GET", "/manifests/2.0")) == (404, "MANIFEST_UNKNOWN")
    assert code(pusher.call("DELETE", f"/manifests/{digest_of(manifest)}")) == (404, "MANIFEST_UNKNOWN")
    verbs = Entry.objects.filter(verb__startswith="delete").values_list("verb", flat=True)
    assert sorted(verbs) == ["delete", "delete_tag"]


def test_an_image_that_a_release_needs_is_not_deleted(pusher: Pusher, app: App) -> None:
    manifest, _ = pusher.image("1.0")
    Release.objects.create(app=app, number=1, image=Image.objects.get(), environment_encrypted=b"")
    answer = pusher.call("DELETE", f"/manifests/{digest_of(manifest)}")
    assert code(answer) == (403, "DENIED")
    assert "release" in answer.text
    assert pusher.call("GET", "/manifests/1.0").status_code == 200


def artifact(pusher: Pusher, kind: str, subject: bytes, **annotations: str) -> httpx.Response:
    """Push something about a manifest, as ORAS does."""
    pusher.blob(b"{}")
    pusher.blob(kind.encode())
    more = {"artifactType": kind, "subject": entry(subject, OCI), "annotations": annotations}
    manifest = manifest_of(b"{}", kind.encode(), config_type=EMPTY, layer_type=kind, **more)
    return pusher.put(digest_of(manifest), manifest)


def test_artifacts_refer_to_a_subject_in_either_order(pusher: Pusher) -> None:
    layer = b"layer"
    subject = manifest_of(config_of(layer, Cmd=["/app"]), layer)
    first = artifact(pusher, "test/signature", subject, key="one")
    assert (first.status_code, first.headers["oci-subject"]) == (201, digest_of(subject))
    assert pusher.image("1.0", layer)[0] == subject
    artifact(pusher, "test/sbom", subject)
    index = index_of(artifactType="test/index", subject=entry(subject, OCI))
    assert pusher.put(digest_of(index), index, INDEX).headers["oci-subject"] == digest_of(subject)
    found = pusher.call("GET", f"/referrers/{digest_of(subject)}")
    assert (found.status_code, found.headers["content-type"]) == (200, INDEX)
    assert "oci-filters-applied" not in found.headers
    by_type = {item["artifactType"]: item for item in found.json()["manifests"]}
    assert set(by_type) == {"test/signature", "test/sbom", "test/index"}
    signature = by_type["test/signature"]
    assert signature["annotations"] == {"key": "one"}
    assert len(pusher.call("GET", f"/manifests/{signature['digest']}").content) == signature["size"]
    filtered = pusher.call("GET", f"/referrers/{digest_of(subject)}?artifactType=test/sbom")
    assert [item["artifactType"] for item in filtered.json()["manifests"]] == ["test/sbom"]
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert pusher.call("GET", f"/referrers/{digest_of(b'nothing')}").json()["manifests"] == []
    assert code(pusher.call("GET", "/referrers/1.0")) == (400, "DIGEST_INVALID")


def test_many_referrers_come_in_pages(pusher: Pusher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "REFERRERS_BYTES", 500)
    for number in range(4):
        artifact(pusher, f"test/kind{number}", b"subject")
    seen: list[str] = []
    address = f"/v2/acme/shop/referrers/{digest_of(b'subject')}"
    while address:
        answer = pusher.call("GET", address)
        assert answer.json()["manifests"]
        seen += [item["artifactType"] for item in answer.json()["manifests"]]
        address = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert sorted(seen) == [f"test/kind{number}" for number in range(4)]


def test_an_index_is_deployed_as_the_image_for_the_hosts(pusher: Pusher) -> None:
    mine, _ = pusher.image("", b"mine")
    config = config_of(b"mine", architecture="arm64")
    pusher.blob(config)
    theirs = manifest_of(config, b"mine")
    assert pusher.put(digest_of(theirs), theirs).status_code == 201
    entries = [
        entry(manifest, OCI) | {"platform": {"os": "linux", "architecture": name}}
        for manifest, name in ((theirs, "arm64"), (mine, "amd64"))
    ]
    index = index_of(*entries)
    assert pusher.put("1.0", index, INDEX).status_code == 201
    row = Image.objects.get(kind="index")
    assert {part.digest for part in row.parts.all()} == {digest_of(mine), digest_of(theirs)}
    assert manifests.deployable(row).digest == digest_of(mine)
    other = Image.objects.get(digest=digest_of(theirs))
    assert (other.kind, "arm64" in other.config["refusal"]) == ("artifact", True)


def test_what_was_pushed_stays_while_it_is_tagged_listed_or_about_something(pusher: Pusher) -> None:
    subject, _ = pusher.image("", b"part")
    index = index_of(entry(subject, OCI))
    pusher.put("1.0", index, INDEX)
    artifact(pusher, "test/signature", subject)
    Image.objects.update(created_at="2020-01-01T00:00:00Z")
    collect.collect(grace_s=0)
    assert Image.objects.count() == 3
    assert pusher.call("DELETE", "/manifests/1.0").status_code == 202
    for _ in range(3):  # the index, then what it listed, then what was about that
        collect.collect(grace_s=0)
    assert Image.objects.count() == 0


def test_an_archive_has_its_tag_and_is_the_latest(pusher: Pusher, app: App, people: People) -> None:
    import asyncio

    from portal.accounts.actor import Actor

    pusher.image("latest")
    actor = Actor(user=people.developer, door="api")
    image = asyncio.run(receive_archive(actor, app, archives.chunks(archives.demo(tag="hello:7"))))
    assert pusher.call("HEAD", "/manifests/latest").headers["docker-content-digest"] == image.digest
    assert pusher.call("HEAD", "/manifests/7").headers["docker-content-digest"] == image.digest
    assert not Tag.objects.get(name="7").pushed


def test_a_manifest_over_the_quota_is_refused(pusher: Pusher, people: People) -> None:
    pusher.blob(b"{}")
    TeamQuota.objects.update_or_create(team=people.team, defaults={"image_bytes": 100})
    answer = pusher.put("1.0", broken())
    assert code(answer) == (413, "DENIED")
    assert "may hold 100 bytes" in answer.text


def test_an_image_that_the_plan_does_not_allow_is_refused(pusher: Pusher, app: App) -> None:
    Plan.objects.filter(pk=app.plan_id).update(image_bytes=1000)
    pusher.blob(bytes(2000))
    config = config_of(bytes(2000))
    pusher.blob(config)
    answer = pusher.put("1.0", manifest_of(config, bytes(2000)))
    assert code(answer) == (413, "DENIED")
    assert "The plan of shop allows images of 1 kB" in answer.text


def test_repositories_have_a_largest_number_of_tags(pusher: Pusher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_TAGS", 1)
    manifest, _ = pusher.image("1.0")
    assert code(pusher.put("2.0", manifest)) == (403, "DENIED")
    assert pusher.put("1.0", manifest).status_code == 201
