"""A disk that fills up in the middle of an archive."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.images.blobs import BlobStore
from portal.images.faults import NoSpace
from portal.images.ingest import Ingest
from tests.portal.images import archives

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "moorage-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_archive_that_does_not_fit_is_refused_and_its_bytes_are_given_back(small_disk: Path) -> None:
    store = BlobStore(small_disk / "blobs")
    data = archives.demo(size_mb=6)
    with pytest.raises(NoSpace, match="disk is full") as refused, Ingest(store, 1 << 40) as ingest:
        for start in range(0, len(data), 1 << 20):
            ingest.feed(data[start : start + (1 << 20)])
    assert refused.value.status == 507
    assert list(store.incoming.iterdir()) == []
    with Ingest(store, 1 << 40) as smaller:
        smaller.feed(archives.demo())
        smaller.finish().commit(store)
    assert len(list(store.digests())) == 3
