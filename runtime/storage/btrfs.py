"""The driver for stores on btrfs: an image's root is a subvolume, a container's a snapshot of it, its size a quota group's limit.

c/<container>/root   the snapshot. The limit counts what no other subvolume shares: what the container wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.images.format import shown
from runtime.kernel import btrfs
from runtime.storage.driver import DiffPlan, RootPlan, StorageFault, Usage
from runtime.storage.keeping import DEFAULT_MAX_DISK_BYTES
from runtime.storage.ready import ROOT, ReadyRoots

_SMALLEST_BYTES = 1 << 20


class Btrfs(ReadyRoots):
    """See `Driver`. Sizes can be given, changed and taken away at any time."""

    name = "btrfs"
    tells_free = False  # statvfs(2) does not know of quota groups

    def __init__(self, store: Path, *, max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> None:
        super().__init__(store)
        self._max_disk_bytes = max_disk_bytes
        btrfs.enable_quotas(store)

    def prepare(
        self, container_id: str, chain_ids: Sequence[str], *, size_bytes: int = 0, readonly: bool = False
    ) -> RootPlan:
        """See `Driver.prepare`."""
        self._check_size(size_bytes)
        folder = self._folder(container_id)
        record = self._own_record(folder) or {"chain_ids": list(chain_ids)}
        if not folder.exists():
            base, draft = self._base(chain_ids), self._draft("c")
            btrfs.snapshot(self._store / base, draft / ROOT)
            draft.rename(folder)
        btrfs.set_limit(folder / ROOT, size_bytes or btrfs.NO_LIMIT)
        self._write_record(folder, record | {"size_bytes": size_bytes})
        return RootPlan(
            store_root=str(self._store),
            lowers=(f"c/{container_id}/{ROOT}",),
            upper="",
            work="",
            size_bytes=size_bytes,
            readonly=readonly,
            driver=self.name,
        )

    def set_quota(self, container_id: str, size_bytes: int) -> bool:
        """See `Driver.set_quota`: it always holds at once."""
        self._check_size(size_bytes)
        folder = self._folder(container_id)
        record = self._own_record(folder)
        if record is None:
            raise StorageFault(f"{container_id[:12]} has no writable layer.", "Start the container first.")
        btrfs.set_limit(folder / ROOT, size_bytes or btrfs.NO_LIMIT)
        self._write_record(folder, record | {"size_bytes": size_bytes})
        return True

    def usage(self, container_id: str) -> Usage:
        """See `Driver.usage`: exact, also while it is mounted."""
        folder = self._folder(container_id)
        record = self._record(folder)
        if record is None:
            return Usage(used_bytes=0, size_bytes=0)
        return Usage(used_bytes=btrfs.exclusive_bytes(folder / ROOT), size_bytes=record.get("size_bytes", 0))

    def diff(self, container_id: str, chain_ids: Sequence[str]) -> DiffPlan:
        """See `Driver.diff`."""
        self._own_record(self._folder(container_id))
        base = self._base(chain_ids)
        changed = f"c/{container_id}/{ROOT}" if self._folder(container_id).exists() else base
        return DiffPlan(store_root=str(self._store), lowers=(base,), changed=changed, overlay=False)

    def _new_tree(self, path: Path) -> None:
        btrfs.create_subvolume(path)
        path.chmod(0o755)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes and size_bytes < _SMALLEST_BYTES:
            raise StorageFault(f"A writable layer of {size_bytes} bytes is too small.", "Give it 1 MB or more.")
        if size_bytes > self._max_disk_bytes:
            raise StorageFault(
                f"A writable layer of {shown(size_bytes)} is asked for; this one can grow to {shown(self._max_disk_bytes)}.",
                "Start the engine with a greater --max-disk, then create the container again.",
            )
