"""Drivers whose writable layers get their size from a file of their own (sized.py); without a size they are folders.

c/<container>/<folders>        writable layer without a size
c/<container>/{disk.ext4,fs/}  with a size: file and mount point
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.storage import ext4, sized, trees
from runtime.storage.driver import StorageFault, Usage
from runtime.storage.keeping import DEFAULT_MAX_DISK_BYTES, Keeping


@dataclass(frozen=True, slots=True)
class Place:
    """Where a writable layer lies: relative to the store, and inside of what is mounted, if it has a size."""

    folder: str
    has_size: bool

    def inside(self, name: str) -> str:
        """One of its folders, as it is reached once all is mounted."""
        return f"{self.folder}/{sized.MOUNTPOINT}/{name}" if self.has_size else f"{self.folder}/{name}"

    @property
    def mount(self) -> dict[str, Any]:
        """What RootPlan and DiffPlan say of the file."""
        if not self.has_size:
            return {}
        return {
            "image": f"{self.folder}/{sized.FILE}",
            "mountpoint": f"{self.folder}/{sized.MOUNTPOINT}",
            "image_options": sized.OPTIONS,
        }


class FileSized(Keeping):
    """`max_disk_bytes` is the size of the files made for writable layers: no quota can be greater."""

    tells_free = True
    folders: tuple[str, ...]  # what a writable layer begins with; in the first lies what the container wrote

    def __init__(self, store: Path, *, max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> None:
        super().__init__(store)
        self._files = sized.SizedFiles(store, max_disk_bytes, self.folders)

    def set_quota(self, container_id: str, size_bytes: int) -> bool:
        """See `Driver.set_quota`; raises StorageFault for a container that was made without a size."""
        folder = self._folder(container_id)
        record = self._own_record(folder)
        if record is None or not record["sized"] or not size_bytes:
            raise StorageFault(
                f"The writable layer of {container_id[:12]} has no size that could change.",
                "Create the container with one (--storage-opt size=…).",
            )
        image = folder / sized.FILE
        clusters = sized.clusters(free_blocks(record, image), size_bytes)
        self._write_record(folder, record | {"size_bytes": size_bytes})
        return sized.set_live(image, clusters)

    def usage(self, container_id: str) -> Usage:
        """See `Driver.usage`: for a sized layer what its file takes; `statvfs` on the mounted root is exact."""
        folder = self._folder(container_id)
        record = self._record(folder)
        if record is None:
            return Usage(used_bytes=0, size_bytes=0)
        has_size = record.get("sized", False)
        used = (folder / sized.FILE).stat().st_blocks * 512 if has_size else self._written(folder, record)
        return Usage(used_bytes=used, size_bytes=record.get("size_bytes", 0))

    def _written(self, folder: Path, record: dict[str, Any]) -> int:
        return trees.disk_bytes(folder / self.folders[0])

    def _ensure(self, container_id: str, chain_ids: Sequence[str], size_bytes: int) -> tuple[Place, dict[str, Any]]:
        """The writable layer, made if it is not there, and what a RootPlan says of its size. Raises StorageFault."""
        folder = self._folder(container_id)
        record = self._own_record(folder) or {"chain_ids": list(chain_ids), "sized": bool(size_bytes)}
        has_size = bool(record["sized"])
        if bool(size_bytes) != has_size and folder.exists():
            raise StorageFault(
                f"The writable layer of {container_id[:12]} was made {'with' if has_size else 'without'} a size.",
                "Remove the container and create it again.",
            )
        if not folder.exists():  # made elsewhere and moved in: it is whole or not there
            draft = self._draft("c")
            record |= self._make(draft, chain_ids, with_size=has_size)
            draft.rename(folder)
        self._write_record(folder, record | {"size_bytes": size_bytes})
        place = Place(f"c/{container_id}", has_size)
        if not has_size:
            return place, {}
        image = folder / sized.FILE
        clusters = sized.clusters(free_blocks(record, image), size_bytes)
        sized.check_unmounted(image)
        return place, {"reserved_clusters": clusters, "size_bytes": size_bytes}

    def _make(self, draft: Path, chain_ids: Sequence[str], *, with_size: bool) -> dict[str, Any]:
        """Make a writable layer in the folder `draft`; what its record is to say of it."""
        if with_size:
            return {"free_blocks": self._files.make(draft)}
        for name in self.folders:
            (draft / name).mkdir(mode=0o755)
        return {}

    def _place(self, container_id: str) -> Place:
        record = self._own_record(self._folder(container_id))
        place = Place(f"c/{container_id}", bool(record and record["sized"]))
        if place.has_size:
            sized.check_unmounted(self._store / place.folder / sized.FILE)
        return place


def free_blocks(record: dict[str, Any], image: Path) -> int:
    """Blocks that were free while the layer was empty; a record of before it was noted leaves it to the superblock."""
    if "free_blocks" in record:
        return int(record["free_blocks"])
    superblock = ext4.read_superblock(image)
    return superblock.blocks - superblock.overhead_blocks
