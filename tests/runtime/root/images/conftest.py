"""A store of images in an empty state directory, and what must be the same before and after."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.extract_layer import LayerLimits
from runtime.images.extraction import Extraction, Unpacked
from runtime.images.nursery import Nursery
from runtime.images.packing import Packing
from runtime.images.recipes import Recipes
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


@pytest.fixture
def recipes(tmp_path: Path) -> Recipes:
    """A folder of recipes."""
    return Recipes(tmp_path / "recipes")


def unpacked(layer: bytes, target: Path, recipes: Recipes) -> Unpacked:
    """Unpack a layer into a new folder and keep its recipe."""
    target.mkdir()
    draft = recipes.draft()
    try:
        with Nursery() as nursery, Extraction(nursery, target, draft) as extraction:
            extraction.write(layer)
            found = extraction.finish()
        recipes.keep(draft, found.diff_id)
    finally:
        draft.discard()
    return found


def packed(target: Path, recipes: Recipes, diff_id: str) -> bytes:
    """The layer's tar, made again of its folder."""
    with (
        Nursery() as nursery,
        recipes.opened(diff_id) as (recipe, spill),
        Packing.layer(nursery, target, recipe, spill) as packing,
    ):
        data = b"".join(packing)
    assert recipes.tar_bytes(diff_id) == len(data)
    return data


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
