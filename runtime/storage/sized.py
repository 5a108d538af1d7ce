"""Writable layers of a size as files of a store: copies of one template, an ext4 as large as any may become (see ext4.py)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.kernel import loop, mounts, syscalls
from runtime.storage import ext4, trees
from runtime.storage.driver import StorageFault

FILE, MOUNTPOINT = "disk.ext4", "fs"
OPTIONS = ("discard",)
_SMALLEST_BYTES = 1 << 20


class SizedFiles:
    """The files of one store. `folders` are what each file system begins with. Thread-safe."""

    def __init__(self, store: Path, max_disk_bytes: int, folders: tuple[str, ...]) -> None:
        self._store, self._folders = store, folders
        self._max_disk_bytes = max_disk_bytes // ext4.BLOCK_BYTES * ext4.BLOCK_BYTES
        self._lock = threading.Lock()
        (store / "templates").mkdir(parents=True, exist_ok=True)

    def make(self, draft: Path) -> int:
        """Make the file in the folder `draft`, and the place it will be mounted on; the blocks that are free in it."""
        (draft / MOUNTPOINT).mkdir(mode=0o755)
        ext4.copy_sparse(self._template(), draft / FILE)
        return ext4.read_superblock(draft / FILE).free_blocks

    def _template(self) -> Path:
        """The ext4 file every sized layer begins as, made once for each --max-disk."""
        kind = "" if self._folders == ("u", "w") else "-" + "-".join(self._folders)
        template = self._store / "templates" / f"{self._max_disk_bytes}{kind}.ext4"
        with self._lock:
            if not template.exists():
                draft = self._store / "tmp" / f"t-{os.urandom(8).hex()}"
                for name in self._folders:
                    (draft / "content" / name).mkdir(parents=True, mode=0o755)
                ext4.make(draft / FILE, self._max_disk_bytes, draft / "content")
                (draft / FILE).rename(template)
                trees.discard(draft, self._store / "trash")
        return template


def clusters(free_blocks: int, size_bytes: int) -> int:
    """What to reserve so that `size_bytes` may be used (see `ext4.reserved_clusters`); refuses sizes that hold nothing."""
    if size_bytes < _SMALLEST_BYTES:
        raise StorageFault(f"A writable layer of {size_bytes} bytes is too small.", "Give it 1 MB or more.")
    return ext4.reserved_clusters(free_blocks, size_bytes)


def check_unmounted(image: Path) -> None:
    """Repair a file that a crash of the host left unclean; one that is mounted is well."""
    if ext4.find_loop(image) is None:
        ext4.check(image)


def set_live(image: Path, reserved: int) -> bool:
    """Change what is reserved in a mounted file; False when it is not mounted."""
    device = ext4.find_loop(image)
    return device is not None and ext4.set_reserved(device, reserved)


@contextmanager
def opened(image: Path) -> Iterator[Path]:
    """The file system of a file that is not mounted, for this process only."""
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        with loop.attached(fd) as device:
            made = mounts.make("ext4", OPTIONS, syscalls.MOUNT_ATTR_NODEV, source=f"/dev/{device}")
        try:
            yield Path(f"/proc/self/fd/{made}")
        finally:
            os.close(made)
    finally:
        os.close(fd)
