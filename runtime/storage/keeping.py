"""What all drivers keep in the same way: layers as folders, and a record and a folder for each container.

l/<SHORT>/            a layer        c/<container>/container.json   what it was made from, and by which driver
layers/<chain>.json   its record     tmp/ trash/                    half-made, half-removed
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.kernel.process import write_atomic
from runtime.storage import trees
from runtime.storage.driver import Draft, Layer, StorageFault
from runtime.storage.layers import Layers

DEFAULT_MAX_DISK_BYTES = 64 << 30
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Keeping:
    """The half of a `Driver` that does not depend on how roots are made."""

    name: str

    def __init__(self, store: Path) -> None:
        self._store = store
        self._lock = threading.Lock()
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.chmod(0o700)  # the layers' setuid programs are nobody's on this host
        (store / "c").mkdir(parents=True, exist_ok=True)
        self._layers = Layers(store)

    def containers(self) -> list[str]:
        """See `Driver.containers`."""
        return sorted(path.name for path in (self._store / "c").iterdir())

    def remove(self, container_id: str) -> None:
        """See `Driver.remove`."""
        trees.discard(self._folder(container_id), self._store / "trash")

    def layer(self, chain_id: str) -> Layer | None:
        """See `Driver.layer`."""
        return self._layers.get(chain_id)

    def find_diff(self, diff_id: str) -> Layer | None:
        """See `Driver.find_diff`."""
        return self._layers.find_diff(diff_id)

    def new_layer(self) -> Draft:
        """See `Driver.new_layer`."""
        return self._layers.draft()

    def commit_layer(self, draft: Draft | None, *, chain_id: str, diff_id: str, size_bytes: int) -> Layer:
        """See `Driver.commit_layer`."""
        return self._layers.commit(draft, chain_id=chain_id, diff_id=diff_id, size_bytes=size_bytes)

    def prune_layers(self, keep: Iterable[str]) -> list[str]:
        """See `Driver.prune_layers`."""
        used = set(keep)
        for container_id in self.containers():
            used.update((self._record(self._folder(container_id)) or {}).get("chain_ids", ()))
        return self._layers.prune(used)

    def empty_trash(self) -> None:
        """See `Driver.empty_trash`."""
        trees.empty(self._store / "trash")

    def settle(self) -> None:
        """See `Driver.settle`."""
        self._layers.settle()

    def _folder(self, container_id: str) -> Path:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise StorageFault(f"{container_id[:80]!r} is no container id.")
        return self._store / "c" / container_id

    def _draft(self, kind: str) -> Path:
        """A folder to make something in that will be moved to its place in one step."""
        draft = self._store / "tmp" / f"{kind}-{os.urandom(8).hex()}"
        draft.mkdir()
        return draft

    def _own_record(self, folder: Path) -> dict[str, Any] | None:
        """A container's record; raises StorageFault when another driver made it."""
        record = self._record(folder)
        made_by = (record or {}).get("driver", "overlay2" if record else self.name)
        if made_by != self.name:
            raise StorageFault(
                f"The writable layer of {folder.name[:12]} was made by {made_by}, and this engine uses {self.name}.",
                f"Remove the container and create it again, or start the engine with --storage-driver {made_by}.",
            )
        return record

    @staticmethod
    def _record(folder: Path) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((folder / "container.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record

    def _write_record(self, folder: Path, record: dict[str, Any]) -> None:
        with self._lock:
            write_atomic(folder / "container.json", json.dumps({"driver": self.name} | record).encode())
