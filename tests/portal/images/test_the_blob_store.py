"""Blobs are whole or not there, kept once, and leave only when nobody needs them."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
import time
from pathlib import Path

import pytest
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.blobs import BlobMissing, BlobStore
from portal.images.collect import collect
from portal.images.models import Blob, Image
from portal.releases.models import Release
from tests.portal.images import archives


def test_a_blob_is_seen_only_when_it_is_committed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
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


def test_writers_of_the_same_content_at_once_leave_one_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    content = os.urandom(300_000)
    threads = [threading.Thread(target=store.add, args=(content,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.digests())) == 1
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["sha256:../../etc/passwd", "md5:00", "", f"sha256:{'A' * 64}", f"sha256:{'0' * 64}\n"]
)
def test_nothing_but_a_digest_becomes_a_path(tmp_path: Path, name: str) -> None:
    store = BlobStore(tmp_path)
    for act in (store.path, store.has, store.size, store.open, store.remove, store.touch):
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


def make_old(store: BlobStore) -> None:
    past = time.time() - 7200
    for digest in store.digests():
        os.utime(store.path(digest), (past, past))
    Blob.objects.update(created_at=timezone.now() - dt.timedelta(hours=2))


@pytest.mark.django_db(transaction=True)
def test_collection_takes_old_blobs_without_an_image_and_no_others(
    app: App, developer: Actor, store: BlobStore
) -> None:
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
def test_an_image_that_was_never_deployed_is_forgotten_after_a_week(
    app: App, developer: Actor, store: BlobStore
) -> None:
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
def test_an_upload_that_relies_on_an_old_orphan_keeps_it(app: App, developer: Actor, store: BlobStore) -> None:
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
