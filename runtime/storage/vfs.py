"""The driver that needs nothing of the kernel but idmapped mounts: each container has a whole copy of its image's root.

On a file system that shares blocks between files (xfs, btrfs) the copies take no room until they are changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.storage import compose, sized, trees
from runtime.storage.driver import DiffPlan, RootPlan, StorageFault
from runtime.storage.filesized import FileSized
from runtime.storage.ready import ROOT, ReadyRoots


class Vfs(FileSized, ReadyRoots):
    """See `Driver`."""

    name = "vfs"
    folders = (ROOT,)

    def prepare(
        self, container_id: str, chain_ids: Sequence[str], *, size_bytes: int = 0, readonly: bool = False
    ) -> RootPlan:
        """See `Driver.prepare`. The size is counted beside what the copy of the image takes."""
        place, size = self._ensure(container_id, chain_ids, size_bytes)
        return RootPlan(
            store_root=str(self._store),
            lowers=(place.inside(ROOT),),
            upper="",
            work="",
            readonly=readonly,
            driver=self.name,
            **place.mount,
            **size,
        )

    def diff(self, container_id: str, chain_ids: Sequence[str]) -> DiffPlan:
        """See `Driver.diff`."""
        place, base = self._place(container_id), self._base(chain_ids)
        never_ran = not self._folder(container_id).exists()
        return DiffPlan(
            store_root=str(self._store),
            lowers=(base,),
            changed=base if never_ran else place.inside(ROOT),
            overlay=False,
            **place.mount,
        )

    def _make(self, draft: Path, chain_ids: Sequence[str], *, with_size: bool) -> dict[str, Any]:
        base = self._store / self._base(chain_ids)
        made = super()._make(draft, chain_ids, with_size=with_size)
        try:
            if not with_size:
                compose.apply(base, draft / ROOT)
                return {"base_bytes": trees.disk_bytes(draft / ROOT)}
            with sized.opened(draft / sized.FILE) as file_system:
                compose.apply(base, file_system / ROOT)
                return made | {"free_blocks": os.statvfs(file_system).f_bfree}
        except OSError as error:
            trees.discard(draft, self._store / "trash")
            raise StorageFault(f"The image could not be copied: {error}.", "Is the disk full?") from error

    def _written(self, folder: Path, record: dict[str, Any]) -> int:
        return max(0, super()._written(folder, record) - int(record.get("base_bytes", 0)))
