"""The default driver: overlay over shared layer folders; the writable layer is a folder, or an ext4 file when it has a size.

l/<SHORT>/            a layer          c/<container>/container.json   what it was made from
layers/<chain>.json   its record       c/<container>/{u,w}            writable layer without a size
tmp/ trash/           half-made        c/<container>/{disk.ext4,fs/}  with a size: file and mount point
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runtime.kernel.process import write_atomic
from runtime.storage import ext4, trees
from runtime.storage.driver import DiffPlan, Draft, Layer, RootPlan, StorageFault, Usage
from runtime.storage.layers import Layers

DEFAULT_MAX_DISK_BYTES = 64 << 30
_SMALLEST_BYTES = 1 << 20
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_EMPTY = "l/empty"  # overlay wants a lower layer also for an image without any


class Overlay2:
    """See `Driver`. `max_disk_bytes` is the size of the files made for writable layers: no quota can be greater."""

    name = "overlay2"

    def __init__(self, store: Path, *, max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> None:
        self._store = store
        self._max_disk_bytes = max_disk_bytes // ext4.BLOCK_BYTES * ext4.BLOCK_BYTES
        self._lock = threading.Lock()
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.chmod(0o700)  # the layers' setuid programs are nobody's on this host
        for folder in ("c", "templates", _EMPTY):
            (store / folder).mkdir(parents=True, exist_ok=True)
        self._layers = Layers(store)

    def prepare(
        self, container_id: str, chain_ids: Sequence[str], *, size_bytes: int = 0, readonly: bool = False
    ) -> RootPlan:
        """See `Driver.prepare`. The mounted file's own size is the engine's --max-disk, sparse; the quota is `size_bytes`."""
        folder = self._folder(container_id)
        lowers = self._lowers(chain_ids)
        record = self._record(folder) or {"chain_ids": list(chain_ids), "sized": bool(size_bytes)}
        sized = bool(record["sized"])
        if bool(size_bytes) != sized and folder.exists():
            raise StorageFault(
                f"The writable layer of {container_id[:12]} was made {'with' if sized else 'without'} a size.",
                "Remove the container and create it again.",
            )
        if not folder.exists():
            record |= self._make(folder, sized=sized)
        self._write_record(folder, record | {"size_bytes": size_bytes})
        place = f"c/{container_id}"
        if sized:
            return self._sized_plan(place, lowers, record, size_bytes, readonly=readonly)
        trees.discard(folder / "w" / "work" / "incompat", self._store / "trash")
        return RootPlan(
            store_root=str(self._store),
            lowers=lowers,
            upper=f"{place}/u",
            work=f"{place}/w",
            options=("volatile",),
            readonly=readonly,
        )

    def set_quota(self, container_id: str, size_bytes: int) -> bool:
        """See `Driver.set_quota`; raises StorageFault for a container that was made without a size."""
        folder = self._folder(container_id)
        record = self._record(folder)
        if record is None or not record["sized"] or not size_bytes:
            raise StorageFault(
                f"The writable layer of {container_id[:12]} has no size that could change.",
                "Create the container with one (--storage-opt size=…).",
            )
        image = folder / "disk.ext4"
        clusters = ext4.reserved_clusters(_free_blocks(record, image), _checked_size(size_bytes))
        self._write_record(folder, record | {"size_bytes": size_bytes})
        loop = ext4.find_loop(image)
        return loop is not None and ext4.set_reserved(loop, clusters)

    def diff(self, container_id: str, chain_ids: Sequence[str]) -> DiffPlan:
        """See `Driver.diff`."""
        lowers, place = self._lowers(chain_ids), f"c/{container_id}"
        record = self._record(self._folder(container_id))
        if record is None or not record["sized"]:
            return DiffPlan(store_root=str(self._store), lowers=lowers, changed=f"{place}/u")
        image = self._store / place / "disk.ext4"
        if ext4.find_loop(image) is None:
            ext4.check(image)
        return DiffPlan(
            store_root=str(self._store),
            lowers=lowers,
            changed=f"{place}/fs/u",
            image=f"{place}/disk.ext4",
            mountpoint=f"{place}/fs",
            image_options=("discard",),
        )

    def usage(self, container_id: str) -> Usage:
        """See `Driver.usage`: for a sized layer what its file takes; `statvfs` on the mounted root is exact."""
        folder = self._folder(container_id)
        record = self._record(folder)
        if record is None:
            return Usage(used_bytes=0, size_bytes=0)
        used = (folder / "disk.ext4").stat().st_blocks * 512 if record["sized"] else trees.disk_bytes(folder / "u")
        return Usage(used_bytes=used, size_bytes=record.get("size_bytes", 0))

    def remove(self, container_id: str) -> None:
        """See `Driver.remove`."""
        trees.discard(self._folder(container_id), self._store / "trash")

    def containers(self) -> list[str]:
        """See `Driver.containers`."""
        return sorted(path.name for path in (self._store / "c").iterdir())

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

    def _lowers(self, chain_ids: Sequence[str]) -> tuple[str, ...]:
        """Topmost first; of equal layers only the topmost, for overlay refuses one folder twice and it hides the others anyway."""
        folders = [self._layers.folder(chain_id) for chain_id in reversed(chain_ids)]
        return tuple(dict.fromkeys(folders)) or (_EMPTY,)

    def _make(self, folder: Path, *, sized: bool) -> dict[str, Any]:
        """Make the writable layer elsewhere and move it in: it is whole or not there. What its record is to say of it."""
        draft = self._store / "tmp" / f"c-{os.urandom(8).hex()}"
        draft.mkdir()
        for name in ("fs",) if sized else ("u", "w"):
            (draft / name).mkdir(mode=0o755)
        made = {}
        if sized:
            ext4.copy_sparse(self._template(), draft / "disk.ext4")
            made["free_blocks"] = ext4.read_superblock(draft / "disk.ext4").free_blocks
        draft.rename(folder)
        return made

    def _template(self) -> Path:
        """The ext4 file every sized layer begins as, made once for each --max-disk."""
        template = self._store / "templates" / f"{self._max_disk_bytes}.ext4"
        with self._lock:
            if not template.exists():
                draft = self._store / "tmp" / f"t-{os.urandom(8).hex()}"
                for name in ("u", "w"):
                    (draft / "content" / name).mkdir(parents=True, mode=0o755)
                ext4.make(draft / "disk.ext4", self._max_disk_bytes, draft / "content")
                (draft / "disk.ext4").rename(template)
                trees.discard(draft, self._store / "trash")
        return template

    def _sized_plan(
        self, place: str, lowers: tuple[str, ...], record: dict[str, Any], size_bytes: int, *, readonly: bool
    ) -> RootPlan:
        image = self._store / place / "disk.ext4"
        clusters = ext4.reserved_clusters(_free_blocks(record, image), _checked_size(size_bytes))
        if ext4.find_loop(image) is None:
            ext4.check(image)
        return RootPlan(
            store_root=str(self._store),
            lowers=lowers,
            upper=f"{place}/fs/u",
            work=f"{place}/fs/w",
            image=f"{place}/disk.ext4",
            mountpoint=f"{place}/fs",
            image_options=("discard",),
            reserved_clusters=clusters,
            size_bytes=size_bytes,
            readonly=readonly,
        )

    @staticmethod
    def _record(folder: Path) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((folder / "container.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record

    def _write_record(self, folder: Path, record: dict[str, Any]) -> None:
        with self._lock:
            write_atomic(folder / "container.json", json.dumps(record).encode())


def _free_blocks(record: dict[str, Any], image: Path) -> int:
    """Blocks that were free while the layer was empty; a record of before it was noted leaves it to the superblock."""
    if "free_blocks" in record:
        return int(record["free_blocks"])
    superblock = ext4.read_superblock(image)
    return superblock.blocks - superblock.overhead_blocks


def _checked_size(size_bytes: int) -> int:
    if size_bytes < _SMALLEST_BYTES:
        raise StorageFault(f"A writable layer of {size_bytes} bytes is too small.", "Give it 1 MB or more.")
    return size_bytes
