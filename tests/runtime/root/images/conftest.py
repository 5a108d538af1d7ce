"""A store of images in an empty state directory, and what must be the same before and after."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.extract_layer import LayerLimits
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2

MAX_DISK = 1 << 30


@pytest.fixture
def driver(state: Path) -> Overlay2:
    return Overlay2(state / "engine" / "store", max_disk_bytes=MAX_DISK)


@pytest.fixture
def store(state: Path, driver: Overlay2) -> Iterator[ImageStore]:
    images = ImageStore(
        state / "engine" / "images", driver, limits=LayerLimits(max_bytes=1 << 30), architecture="amd64"
    )
    yield images
    images.close()


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path with mode, size and, for files, content."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(base, name)
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path.relative_to(folder))] = (info.st_mode, len(content), content)
    return found


def children() -> set[str]:
    """Process ids of this process's children, zombies included."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Asserts, when called, that the whole temporary folder is as it was and no child is left."""
    before, children_before = tree(tmp_path), children()

    def check() -> None:
        assert tree(tmp_path) == before
        assert children() <= children_before

    yield check
