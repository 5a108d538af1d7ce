"""An archive becomes an image in one pass, or leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from backports import zstd

from portal.accounts.actor import Actor
from portal.audit.models import Entry
from portal.errors import PortalError
from portal.hosting.models import App
from portal.images import quota
from portal.images.actions import check_announced, receive_archive
from portal.images.blobs import BlobStore
from portal.images.faults import ImageOverQuota, ImageRefused
from portal.images.models import Blob, Image
from portal.plans.models import TeamQuota
from runtime.images.format import Manifest, parse_manifest
from tests.portal.images import archives

pytestmark = pytest.mark.django_db(transaction=True)
on_database = sync_to_async(thread_sensitive=False)


async def test_a_docker_archive_is_stored_whole_and_described(app: App, developer: Actor, store: BlobStore) -> None:
    image = await receive_archive(developer, app, archives.chunks(archives.demo()))
    assert image.repository == "acme/shop"
    assert image.reference == "hello:1.0"
    assert image.config["port"] == 8080
    assert image.config["command"] == ["/app/serve"]
    assert image.config["user"] == "1000:1000"
    assert image.config["env_names"] == ["PATH", "HOME"]
    assert image.config["architecture"] == "amd64"
    manifest = parse_manifest(store.read(image.digest), image.media_type)
    assert isinstance(manifest, Manifest)
    wanted = {image.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    assert set(store.digests()) == wanted
    for digest in wanted:
        assert f"sha256:{hashlib.sha256(store.read(digest)).hexdigest()}" == digest
        assert store.path(digest).stat().st_mode & 0o777 == 0o600
    assert image.size_bytes == sum(store.size(digest) for digest in wanted)
    entry = await on_database(Entry.objects.get)(verb="upload")
    assert (entry.team_slug, entry.object_name, entry.door) == ("acme", "acme/shop", "api")


@pytest.mark.parametrize("dress", ["gzip", "zstd", "old style", "oci-archive", "docker-archive"])
async def test_every_dress_gives_the_same_config(
    dress: str, app: App, developer: Actor, store: BlobStore, tmp_path: Path
) -> None:
    plain = archives.demo()
    data = {
        "gzip": lambda: gzip.compress(plain, 1),
        "zstd": lambda: zstd.compress(plain),
        "old style": lambda: archives.old_style(plain),
        "oci-archive": lambda: archives.by_skopeo(plain, tmp_path, "oci-archive"),
        "docker-archive": lambda: archives.by_skopeo(plain, tmp_path, "docker-archive"),
    }[dress]()
    image = await receive_archive(developer, app, archives.chunks(data))
    assert (image.config["port"], image.config["command"]) == (8080, ["/app/serve"])
    manifest = parse_manifest(store.read(image.digest), image.media_type)
    assert isinstance(manifest, Manifest)
    assert set(store.digests()) == {image.digest, manifest.config.digest, *(la.digest for la in manifest.layers)}


async def test_a_blob_that_is_here_is_not_stored_or_counted_twice(app: App, developer: Actor, store: BlobStore) -> None:
    first = await receive_archive(developer, app, archives.chunks(archives.demo()))
    before = set(store.digests())
    again = await receive_archive(developer, app, archives.chunks(archives.demo()))
    assert again.pk == first.pk
    assert set(store.digests()) == before
    crash = await receive_archive(developer, app, archives.chunks(archives.demo(crash=True)))
    assert len(set(store.digests()) - before) == 2  # config and manifest: the layer is shared
    used = await on_database(quota.used_bytes)(app.team)
    assert used == sum(store.size(digest) for digest in store.digests())
    assert used < first.size_bytes + crash.size_bytes


def _hostile(kind: str) -> bytes:
    good = archives.demo()
    files = archives.members(good)
    layer = max(files, key=lambda name: len(files[name]))
    if kind == "damaged":
        at = good.index(files[layer][1000:1100])
        return good[:at] + b"x" + good[at + 1 :]
    makers = {
        "cut off": lambda: good[: len(good) // 2],
        "empty": lambda: b"",
        "text": lambda: b"this is no archive\n" * 100,
        "path escape": lambda: archives.with_member(good, "../../etc/cron.d/evil", b"* * * * * root true\n"),
        "device": lambda: archives.packed(files, archives.special(tarfile.CHRTYPE)),
        "missing layer": lambda: archives.without(good, [layer]),
        "no image": lambda: archives.packed({"readme.txt": b"hello"}),
        "bomb": lambda: zstd.compress(archives.packed({"blob": bytes(300 << 20)})),
        "other machine": lambda: archives.demo(architecture="s390x"),
        "broken gzip": lambda: gzip.compress(good, 1)[:100_000] + b"\0" * 100_000,
    }
    return makers[kind]()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("damaged", "damaged"),
        ("cut off", "cut off"),
        ("empty", "The archive"),
        ("text", "archive"),
        ("path escape", "leads out of it"),
        ("device", "char device"),
        ("missing layer", "does not have"),
        ("no image", "no image"),
        ("bomb", "bomb"),
        ("other machine", "linux/s390x; the hosts run linux/amd64"),
        ("broken gzip", "cut off|damaged"),
    ],
)
async def test_a_wrong_archive_is_refused_with_a_sentence_and_leaves_nothing(
    kind: str, sentence: str, app: App, developer: Actor, store: BlobStore
) -> None:
    with pytest.raises(ImageRefused, match=sentence) as refused:
        await receive_archive(developer, app, archives.chunks(_hostile(kind)))
    assert refused.value.status == 422
    assert refused.value.message.endswith(".")
    assert list(store.digests()) == []
    assert not await on_database(Image.objects.exists)()
    assert not await on_database(Blob.objects.exists)()


async def test_over_quota_is_refused_before_and_during_the_stream(app: App, developer: Actor, store: BlobStore) -> None:
    await on_database(TeamQuota.objects.update_or_create)(team=app.team, defaults={"image_bytes": 1_000_000})
    with pytest.raises(ImageOverQuota, match=r"may hold 1 MB of images and holds 0 bytes; this needs 5 MB more"):
        await on_database(check_announced)(app, 5_000_000)
    data, taken = archives.demo(size_mb=8), 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in archives.chunks(data):
            taken += len(chunk)
            yield chunk

    with pytest.raises(ImageOverQuota) as refused:
        await receive_archive(developer, app, counted())
    assert refused.value.status == 413
    assert taken < 1_500_000
    assert list(store.digests()) == []


async def test_two_archives_at_once_cannot_pass_the_quota_together(
    app: App, developer: Actor, store: BlobStore
) -> None:
    await on_database(TeamQuota.objects.update_or_create)(team=app.team, defaults={"image_bytes": 6 << 20})
    bodies = [archives.demo(size_mb=3), archives.demo(size_mb=4)]
    results = await asyncio.gather(
        *(receive_archive(developer, app, archives.chunks(body)) for body in bodies), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Image", "ImageOverQuota"]
    assert await on_database(quota.used_bytes)(app.team) <= 6 << 20


async def test_a_client_that_goes_away_leaves_nothing(app: App, developer: Actor, store: BlobStore) -> None:
    half = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield archives.demo()[:300_000]
        half.set()
        await asyncio.Event().wait()

    receiving = asyncio.create_task(receive_archive(developer, app, stalls()))
    await half.wait()
    assert list(store.incoming.iterdir()) != []
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert list(store.incoming.iterdir()) == []


async def test_an_archive_of_two_images_is_refused_by_their_names(app: App, developer: Actor, store: BlobStore) -> None:
    one, two = archives.members(archives.demo(tag="one:1")), archives.members(archives.demo(tag="two:1", crash=True))
    manifest = one["manifest.json"][:-1] + b"," + two["manifest.json"][1:]
    both = {name: data for name, data in {**one, **two}.items() if name.startswith("blobs/")}
    with pytest.raises(PortalError, match="2 images: one:1, two:1"):
        await receive_archive(developer, app, archives.chunks(archives.packed({**both, "manifest.json": manifest})))
    assert list(store.digests()) == []


@on_database
def limit_images(app: App, most_bytes: int) -> None:
    app.plan.image_bytes = most_bytes
    app.plan.save()


async def test_an_image_larger_than_the_plan_allows_is_refused_whatever_is_left_out_of_it(
    app: App, developer: Actor, store: BlobStore
) -> None:
    image = await receive_archive(developer, app, archives.chunks(archives.demo(size_mb=2)))
    await limit_images(app, 3 << 20)
    layers = [layer["digest"] for layer in image.config["layers"]]
    small = archives.without(archives.demo(size_mb=2), [f"blobs/{digest.replace(':', '/')}" for digest in layers])
    for archive in (archives.demo(size_mb=4), small):
        with pytest.raises(ImageOverQuota, match="The plan of shop allows images of") as refused:
            await receive_archive(developer, app, archives.chunks(archive))
        assert refused.value.status == 413
    await limit_images(app, 0)
    assert await receive_archive(developer, app, archives.chunks(small))
