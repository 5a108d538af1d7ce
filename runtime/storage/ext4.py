"""Writable layers of a fixed size: an ext4 file system in a sparse file on a loop device.

The usable size is not the file's: `/sys/fs/ext4/loopN/reserved_clusters` keeps the rest away, and may change while mounted
(Documentation/ABI/testing/sysfs-fs-ext4). On-disk fields: kernel Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.images.format import shown
from runtime.kernel import loop
from runtime.storage.driver import StorageFault

BLOCK_BYTES: Final = 4096
FEATURES: Final = (
    "^has_journal,^resize_inode"  # the layer is the container's: after a crash of the host it is checked, not replayed
)
_SUPERBLOCK_AT, _MAGIC, _CLEAN = 1024, 0xEF53, 1
_SYS_EXT4 = Path("/sys/fs/ext4")


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the quota needs of an ext4 superblock. `clean`: unmounted properly, only then `free_blocks` is exact."""

    blocks: int
    overhead_blocks: int
    free_blocks: int
    clean: bool


def read_superblock(image: Path) -> Superblock:
    """Read an image file's superblock; raises StorageFault when it is no ext4 with 4096-byte blocks."""
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK_AT)
        data = file.read(1024)
    low, log_size = struct.unpack_from("<I", data, 0x4)[0], struct.unpack_from("<I", data, 0x18)[0]
    magic, state = struct.unpack_from("<HH", data, 0x38)
    if magic != _MAGIC or log_size != 2:
        raise StorageFault(f"{image} is not the file system it should be.", "Remove the container and create it again.")
    high, overhead = struct.unpack_from("<I", data, 0x150)[0], struct.unpack_from("<I", data, 0x248)[0]
    free = struct.unpack_from("<I", data, 0xC)[0] | struct.unpack_from("<I", data, 0x158)[0] << 32
    return Superblock(low | high << 32, overhead, free, bool(state & _CLEAN))


def reserved_clusters(free_blocks: int, size_bytes: int) -> int:
    """What to write to `reserved_clusters` so that `size_bytes` may be used; raises StorageFault above the greatest size.

    `free_blocks` is what statfs(2) calls `f_bfree` of the file system while it holds nothing of the container's. The
    kernel's own reserve, 2 % up to 16 MB, is set at each mount: it has to be replaced, also by 0.
    """
    wanted = -(-size_bytes // BLOCK_BYTES)
    if wanted > free_blocks:
        raise StorageFault(
            f"A writable layer of {shown(size_bytes)} is asked for; this one can grow to {shown(free_blocks * BLOCK_BYTES)}.",
            "Start the engine with a greater --max-disk, then create the container again.",
        )
    return free_blocks - wanted


def make(image: Path, size_bytes: int, folders: Path, *, journal_mb: int = 0) -> None:
    """Make an ext4 file system in a new sparse file, holding the folders below `folders`; raises StorageFault.

    What must survive a crash of the host has a journal.
    """
    features = FEATURES.replace("^has_journal", "has_journal") if journal_mb else FEATURES
    extended = "lazy_itable_init=1,nodiscard,assume_storage_prezeroed=1,root_owner=0:0"
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), "-O", features, "-E", extended]
    command += ["-J", f"size={journal_mb}"] if journal_mb else []
    command += ["-d", str(folders), str(image), str(size_bytes // BLOCK_BYTES)]
    with image.open("xb") as file:
        file.truncate(size_bytes)
    _run(command, "The template of writable layers could not be made")


def check(image: Path) -> None:
    """Repair an image that a crash of the host left unclean; raises StorageFault when that fails. Must not be mounted."""
    if not read_superblock(image).clean:
        _run(["e2fsck", "-f", "-y", str(image)], f"{image} could not be repaired", good=(0, 1))


def _run(command: list[str], what: str, good: tuple[int, ...] = (0,)) -> None:
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    except FileNotFoundError as error:
        raise StorageFault(f"{what}: {command[0]} is missing.", "Install e2fsprogs.") from error
    if done.returncode not in good:
        raise StorageFault(f"{what}: {(done.stderr or done.stdout).strip()[-300:]}.")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's data and leave its holes."""
    with source.open("rb") as src, target.open("xb") as dst:
        size = os.fstat(src.fileno()).st_size
        dst.truncate(size)
        start = 0
        with suppress(OSError):  # ENXIO: no data after `start`
            while start < size:
                start = os.lseek(src.fileno(), start, os.SEEK_DATA)
                end = os.lseek(src.fileno(), start, os.SEEK_HOLE)
                _copy_range(src.fileno(), dst.fileno(), start, end)
                start = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        copied = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
        if not copied:
            raise StorageFault("The template of writable layers changed while it was copied.", "Try again.")
        start += copied


find_loop = loop.find


def set_reserved(device: str, clusters: int) -> bool:
    """Write `reserved_clusters` of a mounted loop device; False when it is no longer mounted."""
    try:
        (_SYS_EXT4 / device / "reserved_clusters").write_text(str(clusters))
    except FileNotFoundError:
        return False
    return True
