"""Where backups lie: equal parts once, everything looked at when it is read, nothing removed that a backup has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from backports import zstd

from portal.errors import Invalid
from portal.volumes.chunks import ChunkStore, Damaged


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def keep(store: ChunkStore, backup: int, *parts: bytes) -> int:
    added = sum(store.put(digest(part), zstd.compress(part)) for part in parts)
    store.keep_list(backup, b"".join(map(digest, parts)))
    return added


def test_what_is_here_is_not_missing_and_not_kept_twice(tmp_path: Path) -> None:
    store = ChunkStore(1, tmp_path)
    assert store.missing([digest(b"a"), digest(b"b")]) == [digest(b"a"), digest(b"b")]
    assert keep(store, 1, b"a", b"b" * 5000, b"a") > 0
    assert store.missing([digest(b"a"), digest(b"c")]) == [digest(b"c")]
    assert keep(store, 2, b"a") == 0
    assert b"".join(store.plain(1)) == b"a" + b"b" * 5000 + b"a"
    assert ChunkStore(2, tmp_path).missing([digest(b"a")]) == [digest(b"a")], "teams share nothing"


def test_the_stored_frames_are_one_zstd_file(tmp_path: Path) -> None:
    store = ChunkStore(1, tmp_path)
    keep(store, 1, b"one", b"two")
    assert zstd.decompress(b"".join(store.packed(1))) == b"onetwo"


@pytest.mark.parametrize(
    "packed", [b"no frame", zstd.compress(b"other"), zstd.compress(bytes(2 << 20)), zstd.compress(b"a") + b"x"]
)
def test_a_chunk_that_is_not_what_it_says_is_refused(tmp_path: Path, packed: bytes) -> None:
    store = ChunkStore(1, tmp_path)
    with pytest.raises(Invalid):
        store.put(digest(b"a"), packed)
    with pytest.raises(Invalid):
        store.put(digest(bytes(2 << 20)), packed)
    assert store.stored_bytes() == 0


def test_a_list_with_a_chunk_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        ChunkStore(1, tmp_path).keep_list(1, digest(b"a"))


def test_damage_is_seen_when_it_is_read(tmp_path: Path) -> None:
    store = ChunkStore(1, tmp_path)
    keep(store, 1, b"one", b"two")
    file = next(path for path in tmp_path.glob("1/c/*/*") if path.name == digest(b"two").hex())
    file.write_bytes(zstd.compress(b"too"))
    with pytest.raises(Damaged, match="damaged"):
        list(store.plain(1))
    file.unlink()
    with pytest.raises(Damaged, match="gone"):
        list(store.plain(1))


def test_only_chunks_that_no_backup_has_go_and_young_ones_stay(tmp_path: Path) -> None:
    store = ChunkStore(1, tmp_path)
    keep(store, 1, b"both", b"one alone")
    keep(store, 2, b"both")
    store.put(digest(b"under way"), zstd.compress(b"under way"))
    store.forget(1)
    assert store.collect() == 0
    for path in tmp_path.glob("1/c/*/*"):
        if path.name != digest(b"under way").hex():
            os.utime(path, (0, 0))
    assert store.collect() == len(zstd.compress(b"one alone"))
    assert b"".join(store.plain(2)) == b"both"
    assert store.missing([digest(b"under way")]) == []
