"""The recipes of a store's layers, one (and maybe a spill file) a layer, below `<images>/recipes`, named by diff id.

A recipe counts once it has its head, which is written last, and its name. It is not synced by itself: its layer is not
either before the driver settles, and a layer whose recipe a crash took is fetched again when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.images.format_digest import ImageFault
from runtime.images.recipe import HEAD, MAGIC, tar_bytes

_DRAFT = "draft-"


class RecipeDraft:
    """Two open files that nobody else sees before `Recipes.keep`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = _new(path)
        try:
            self.spill = _new(_spill(path))
        except BaseException:
            os.close(self.recipe)
            raise
        os.lseek(self.recipe, HEAD.size, os.SEEK_SET)

    def finish(self, tar_bytes: int) -> None:
        """The child has written all: close."""
        os.pwrite(self.recipe, HEAD.pack(MAGIC, tar_bytes), 0)
        if not os.fstat(self.spill).st_size:
            _spill(self.path).unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        for fd in (self.recipe, self.spill):
            if fd >= 0:
                os.close(fd)
        self.recipe = self.spill = -1

    def discard(self) -> None:
        """Close, and remove what was not kept; harmless afterwards."""
        self._close()
        self.path.unlink(missing_ok=True)
        _spill(self.path).unlink(missing_ok=True)


class Recipes:
    """See the module. Safe in threads: files come and go by rename and unlink."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in root.glob(f"{_DRAFT}*"):
            path.unlink()

    def draft(self) -> RecipeDraft:
        """Two new files."""
        return RecipeDraft(self._root / f"{_DRAFT}{os.urandom(8).hex()}")

    def keep(self, draft: RecipeDraft, diff_id: str) -> None:
        """Make a finished draft the recipe of a layer; nothing happens when it has one, or for a draft that was kept."""
        path = self._path(diff_id)
        if path.exists() or not draft.path.exists():
            return
        if _spill(draft.path).exists():
            _spill(draft.path).rename(_spill(path))
        draft.path.rename(path)

    def has(self, diff_id: str) -> bool:
        """Whether the layer's tar can be made again."""
        return self._path(diff_id).exists()

    @contextmanager
    def opened(self, diff_id: str) -> Iterator[tuple[int, int]]:
        """Descriptors of a layer's recipe and spill file (-1 without one); raises ImageFault for a layer without a recipe."""
        path = self._path(diff_id)
        with ExitStack() as open_files:
            try:
                recipe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise ImageFault(
                    f"The layer {diff_id} came in before this engine kept what is needed to give it out again.",
                    "Load or pull the image again.",
                ) from None
            open_files.callback(os.close, recipe)
            try:
                spill = os.open(_spill(path), os.O_RDONLY | os.O_CLOEXEC)
                open_files.callback(os.close, spill)
            except FileNotFoundError:
                spill = -1
            yield recipe, spill

    def tar_bytes(self, diff_id: str) -> int:
        """Length of a layer's tar; raises ImageFault when it cannot be made."""
        with self.opened(diff_id) as (recipe, _):
            return tar_bytes(recipe)

    def prune(self, wanted: Callable[[str], bool]) -> None:
        """Remove the recipes of layers that are not `wanted` by diff id."""
        for path in self._root.iterdir():
            if not path.name.startswith(_DRAFT) and not wanted(f"sha256:{path.name.removesuffix('.spill')}"):
                path.unlink(missing_ok=True)

    def _path(self, diff_id: str) -> Path:
        return self._root / diff_id.removeprefix("sha256:")


def _new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _spill(path: Path) -> Path:
    return path.with_name(f"{path.name}.spill")
