"""The default driver: overlay over shared layer folders; the writable layer is a folder, or an ext4 file when it has a size.

`u` and `w` are overlay's upper and work folders (filesized.py says where).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.storage import trees
from runtime.storage.driver import DiffPlan, RootPlan
from runtime.storage.filesized import FileSized
from runtime.storage.keeping import DEFAULT_MAX_DISK_BYTES

_EMPTY = "l/empty"  # overlay wants a lower layer also for an image without any
_UPPER, _WORK = "u", "w"


class Overlay2(FileSized):
    """See `Driver`."""

    name = "overlay2"
    folders = (_UPPER, _WORK)

    def __init__(self, store: Path, *, max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> None:
        super().__init__(store, max_disk_bytes=max_disk_bytes)
        (store / _EMPTY).mkdir(parents=True, exist_ok=True)

    def prepare(
        self, container_id: str, chain_ids: Sequence[str], *, size_bytes: int = 0, readonly: bool = False
    ) -> RootPlan:
        """See `Driver.prepare`. The mounted file's own size is the engine's --max-disk, sparse; the quota is `size_bytes`."""
        lowers = self._lowers(chain_ids)
        place, size = self._ensure(container_id, chain_ids, size_bytes)
        if not place.has_size:
            trees.discard(self._folder(container_id) / _WORK / "work" / "incompat", self._store / "trash")
        return RootPlan(
            store_root=str(self._store),
            lowers=lowers,
            upper=place.inside(_UPPER),
            work=place.inside(_WORK),
            options=() if place.has_size else ("volatile",),
            readonly=readonly,
            driver=self.name,
            **place.mount,
            **size,
        )

    def diff(self, container_id: str, chain_ids: Sequence[str]) -> DiffPlan:
        """See `Driver.diff`."""
        place = self._place(container_id)
        return DiffPlan(
            store_root=str(self._store),
            lowers=self._lowers(chain_ids),
            changed=place.inside(_UPPER),
            **place.mount,
        )

    def _lowers(self, chain_ids: Sequence[str]) -> tuple[str, ...]:
        """Topmost first; of equal layers only the topmost, for overlay refuses one folder twice and it hides the others anyway."""
        folders = [self._layers.folder(chain_id) for chain_id in reversed(chain_ids)]
        return tuple(dict.fromkeys(folders)) or (_EMPTY,)
