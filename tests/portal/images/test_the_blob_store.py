"""Blobs are whole or not there, kept once, and leave only when nobody needs them."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.config import ConfigError
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.blobs import BlobMissing, Blobs, BlobStore
from portal.images.collect import collect
from portal.images.faults import StoreUnavailable
from portal.images.models import Blob, Image
from portal.images.objects import ObjectStore, storage_of
from portal.releases.models import Release
from tests.portal.images import archives
from tests.portal.images.ages import make_old


@pytest.mark.django_db(transaction=True)
def test_a_blob_is_seen_only_when_it_is_committed(either: Blobs) -> None:
    store = either
    with store.writer() as writer:
        writer.write(b"half")
        assert list(store.digests()) == []
        writer.write(memoryview(b" and half"))
        stored = writer.commit()
    assert store.read(stored.digest) == b"half and half"
    assert (store.size(stored.digest), list(store.digests())) == (13, [stored.digest])
    with store.writer() as dropped:
        dropped.write(b"never")
    assert list(store.incoming.iterdir()) == []
    assert list(store.digests()) == [stored.digest]


@pytest.mark.django_db(transaction=True)
def test_writers_of_the_same_content_at_once_leave_one_blob(either: Blobs) -> None:
    store, content = either, os.urandom(300_000)

    def add() -> None:
        store.add(content)
        connection.close()

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.digests())) == 1
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["sha256:../../etc/passwd", "md5:00", "", f"sha256:{'A' * 64}", f"sha256:{'0' * 64}\n"]
)
@pytest.mark.django_db(transaction=True)
def test_nothing_but_a_digest_becomes_a_name(either: Blobs, name: str) -> None:
    store = either
    for act in (store.has, store.size, store.open, store.read, store.remove, store.touch):
        with pytest.raises(BlobMissing):
            act(name)


def test_what_crashed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    old, young = store.incoming / "old", store.incoming / "young"
    for file in (old, young):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert store.sweep_incoming() == 1
    assert list(store.incoming.iterdir()) == [young]


@pytest.mark.django_db(transaction=True)
def test_collection_takes_old_blobs_without_an_image_and_no_others(app: App, developer: Actor, either: Blobs) -> None:
    store = either
    kept = asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo())))
    gone = asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo(crash=True))))
    needed = set(kept.blobs.values_list("digest", flat=True))
    gone.delete()
    stray = store.add(b"written by a process that died before its row").digest
    assert collect().blobs == 0  # all of it is young
    make_old(store)
    asked_for_again = next(digest for digest in store.digests() if digest not in needed)
    store.touch(asked_for_again)
    assert collect().blobs == 2
    assert set(store.digests()) == needed | {asked_for_again}
    make_old(store)
    assert collect().blobs == 1
    assert set(store.digests()) == needed
    assert set(Blob.objects.values_list("digest", flat=True)) == needed
    assert stray not in needed


@pytest.mark.django_db(transaction=True)
def test_an_image_that_was_never_deployed_is_forgotten_after_a_week(app: App, developer: Actor, either: Blobs) -> None:
    store = either
    image = asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo())))
    released = asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo(crash=True))))
    Release.objects.create(app=app, number=1, image=released, environment_encrypted=b"")
    make_old(store)
    collect()
    assert Image.objects.count() == 2
    Image.objects.update(created_at=timezone.now() - dt.timedelta(days=8))
    collect()
    assert list(Image.objects.all()) == [released]
    assert not store.has(image.digest)
    assert store.has(released.digest)


@pytest.mark.django_db(transaction=True)
def test_an_upload_that_relies_on_an_old_orphan_keeps_it(app: App, developer: Actor, either: Blobs) -> None:
    store = either
    asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo()))).delete()
    make_old(store)
    collected = 0

    async def chunks_with_a_collection_in_between() -> object:
        nonlocal collected
        data = archives.demo()
        async for chunk in archives.chunks(data, len(data) // 2 + 1):
            yield chunk
        collected = (await asyncio.to_thread(collect)).blobs

    image = asyncio.run(receive_archive(developer, app, chunks_with_a_collection_in_between()))  # type: ignore[arg-type]
    assert collected == 0
    for digest in image.blobs.values_list("digest", flat=True):
        assert store.has(digest)


def test_a_blob_that_was_written_hours_ago_and_is_registered_now_is_no_left_over(
    db: None, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow line: the first layer's file is older than the grace period when the image is complete."""
    held = BlobStore.keep

    def keep_old(self: BlobStore, path: object, *args: object) -> None:
        os.utime(path, (0, 0))  # type: ignore[arg-type]
        held(self, path, *args)  # type: ignore[arg-type]
        assert collect().blobs == 0  # no row names it yet

    monkeypatch.setattr(BlobStore, "keep", keep_old)
    with store.writer() as writer:
        writer.write(b"the first layer")
        blob = writer.commit()
    assert store.has(blob.digest)


@pytest.mark.django_db(transaction=True)
def test_a_blob_is_read_from_any_place(either: Blobs) -> None:
    content = os.urandom(200_000)
    digest = either.add(content).digest
    with either.open(digest) as file:
        assert file.read(10) == content[:10]
        file.seek(150_000)
        assert file.read(20) == content[150_000:150_020]
        assert file.read() == content[150_020:]
        assert file.read(1) == b""
        file.seek(5)
        assert file.read(5) == content[5:10]


@pytest.mark.django_db(transaction=True)
def test_an_object_that_is_removed_is_never_the_one_just_written(objects: ObjectStore) -> None:
    """Between the row's end and the object's, another writer brings the same blob."""
    digest = objects.add(b"the same").digest
    discard = objects.discard
    objects.discard = lambda key: (objects.add(b"the same"), discard(key))  # type: ignore[assignment,method-assign]
    assert objects.remove(digest)
    del objects.discard  # type: ignore[method-assign]
    assert objects.read(digest) == b"the same"


@pytest.mark.django_db(transaction=True)
def test_an_object_without_a_row_goes_after_a_day_and_no_other(objects: ObjectStore) -> None:
    kept = objects.add(b"kept").digest
    with objects.writer() as writer:
        writer.write(b"of a process that died before its row")
        writer.seal()
        writer._secured = ""  # as if it had died
    assert objects.sweep_incoming() == 0
    assert objects.sweep_incoming(older_than_s=-1) == 1
    assert objects.read(kept) == b"kept"


@pytest.mark.django_db(transaction=True)
def test_an_object_store_that_is_away_is_a_sentence_and_leaves_nothing(
    app: App, developer: Actor, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import EndpointConnectionError

    def away(*args: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://nowhere")

    with monkeypatch.context() as patched:
        patched.setattr(objects._storage, "save", away)
        with pytest.raises(StoreUnavailable, match="cannot be used now") as refused:
            asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo())))
        assert refused.value.status == 503
    assert list(objects.incoming.iterdir()) == []
    assert Image.objects.count() == 0
    assert asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo())))


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/", "http://bucket", "s3:///prefix", "s3://bucket/?endpoint=http://x&acl=public"]
)
def test_an_address_that_cannot_be_meant_is_refused_in_words(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="MOORAGE_BLOBS_URL"):
        storage_of(url, tmp_path / "blobs")


def test_the_secret_stands_in_a_file_of_two_lines(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("only-one\n")
    with pytest.raises(ConfigError, match="two lines"):
        storage_of("s3://bucket", tmp_path / "blobs")


@pytest.mark.django_db(transaction=True)
def test_what_an_upload_relies_on_survives_even_a_collection_without_grace(
    app: App, developer: Actor, store: BlobStore
) -> None:
    """As when the disk is tight and the client has stalled: files are held by a link of the upload's own."""
    asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo()))).delete()
    collected = 0

    async def chunks_with_a_collection_in_between() -> object:
        nonlocal collected
        data = archives.demo()
        yield data[:-2000]
        collected = (await asyncio.to_thread(collect, grace_s=-1)).blobs
        yield data[-2000:]

    image = asyncio.run(receive_archive(developer, app, chunks_with_a_collection_in_between()))  # type: ignore[arg-type]
    assert collected == 3
    assert all(store.has(digest) for digest in image.blobs.values_list("digest", flat=True))
