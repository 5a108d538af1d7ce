"""Drivers that cannot stack layers: one ready root for each image, made of its layers once, and copies of it for containers.

r/<chain id of the topmost layer>   an image's root; nobody changes it
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtime.kernel import syscalls
from runtime.storage import compose, trees
from runtime.storage.driver import StorageFault
from runtime.storage.keeping import Keeping

ROOT = "root"
_EMPTY = "empty"


class ReadyRoots(Keeping):
    """What vfs and btrfs share."""

    def __init__(self, store: Path) -> None:
        super().__init__(store)
        self._composing = threading.Lock()
        (store / "r").mkdir(exist_ok=True)

    def prune_layers(self, keep: Iterable[str]) -> list[str]:
        """See `Driver.prune_layers`; roots of images go with their topmost layer."""
        gone = super().prune_layers(keep)
        with self._composing:
            for root in (self._store / "r").iterdir():
                if root.name != _EMPTY and self._layers.get(f"sha256:{root.name}") is None:
                    root.rename(self._store / "trash" / f"{root.name}-{os.urandom(6).hex()}")
        return gone

    def _base(self, chain_ids: Sequence[str]) -> str:
        """The image's root relative to the store, made if it is not there; raises StorageFault when a layer is missing."""
        layers = [self._layers.folder(chain_id) for chain_id in chain_ids]
        name = chain_ids[-1].removeprefix("sha256:") if chain_ids else _EMPTY
        with self._composing:
            if not (self._store / "r" / name).exists():
                self._compose(layers, self._store / "r" / name)
        return f"r/{name}"

    def _compose(self, layers: Sequence[str], base: Path) -> None:
        draft = self._store / "tmp" / f"r-{os.urandom(8).hex()}"
        try:
            self._new_tree(draft)
            for layer in layers:
                compose.apply(self._store / layer, draft)
            _settle(draft)
            draft.rename(base)
        except OSError as error:
            raise StorageFault(f"The image's root could not be made: {error}.", "Is the disk full?") from error
        finally:
            trees.discard(draft, self._store / "trash")

    def _new_tree(self, path: Path) -> None:
        """An empty folder that a root grows in."""
        path.mkdir()
        path.chmod(0o755)


def _settle(folder: Path) -> None:
    """To disk, before its name says that it is whole: a crash of the host must not leave half of it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
