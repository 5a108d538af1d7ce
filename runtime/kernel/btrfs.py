"""Subvolumes, snapshots and quota groups of btrfs by ioctl (include/uapi/linux/btrfs.h, btrfs_tree.h; btrfs-ioctl(2))."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FIRST_INODE: Final = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root
NO_LIMIT: Final = 2**64 - 1
_SNAP_CREATE, _SUBVOL_CREATE, _SNAP_DESTROY = 0x50009401, 0x5000940E, 0x5000940F
_SNAP_CREATE_V2, _SUBVOL_CREATE_V2 = 0x50009417, 0x50009418
_INO_LOOKUP, _FS_INFO, _QUOTA_CTL, _QGROUP_LIMIT, _RESCAN_WAIT = 0xD0009412, 0x8400941F, 0xC0109428, 0x8030942B, 0x942E
SUBVOLUME_MAKERS: Final = (_SNAP_CREATE, _SUBVOL_CREATE, _SNAP_CREATE_V2, _SUBVOL_CREATE_V2)
"""What makes a subvolume: it would have a quota group of its own, without a limit."""

_VOL_ARGS = struct.Struct("=q4088s")
_VOL_ARGS_V2 = struct.Struct("=qQQ32s4040s")
_LIMIT = struct.Struct("=6Q")  # qgroupid, flags, max_rfer, max_excl, rsv_rfer, rsv_excl
_MAX_EXCL, _QUOTA_ENABLE = 2, 1
_SYSFS = Path("/sys/fs/btrfs")


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _ioctl(fd: int, request: int, arguments: bytes = b"") -> bytes:
    """Structures of more than a kilobyte must be writable for Python."""
    buffer = bytearray(arguments)
    fcntl.ioctl(fd, request, buffer if arguments else 0)
    return bytes(buffer)


def create_subvolume(path: Path) -> None:
    """An empty subvolume."""
    with _opened(path.parent) as parent:
        _ioctl(parent, _SUBVOL_CREATE, _VOL_ARGS.pack(0, os.fsencode(path.name)))


def snapshot(source: Path, path: Path) -> None:
    """A writable snapshot of the subvolume `source`."""
    with _opened(source) as subvolume, _opened(path.parent) as parent:
        arguments = _VOL_ARGS_V2.pack(subvolume, 0, 0, b"", os.fsencode(path.name))
        _ioctl(parent, _SNAP_CREATE_V2, arguments)


def destroy(parent: int, name: str) -> None:
    """Remove a subvolume with all that is in it, also while it is mounted elsewhere. ENOTEMPTY: it holds other subvolumes."""
    _ioctl(parent, _SNAP_DESTROY, _VOL_ARGS.pack(0, os.fsencode(name)))


def subvolume_id(folder: Path) -> int:
    """The id of the subvolume a folder lies in, which is its quota group's too."""
    with _opened(folder) as fd:
        answer = _ioctl(fd, _INO_LOOKUP, struct.pack("=QQ4080s", 0, FIRST_INODE, b""))
    return int(struct.unpack_from("=Q", answer)[0])


def enable_quotas(folder: Path) -> None:
    """Have the file system count what each subvolume takes; nothing happens when it does. Waits until it has counted."""
    with _opened(folder) as fd:
        _ioctl(fd, _QUOTA_CTL, struct.pack("=QQ", _QUOTA_ENABLE, 0))
        with suppress(OSError):  # nothing to wait for
            _ioctl(fd, _RESCAN_WAIT)


def set_limit(subvolume: Path, exclusive_bytes: int) -> None:
    """What a subvolume may hold that no other one shares; NO_LIMIT takes the limit away."""
    group = subvolume_id(subvolume)
    with _opened(subvolume.parent) as fd:  # the call is charged to where it is made: a full one could never be helped
        _ioctl(fd, _QGROUP_LIMIT, _LIMIT.pack(group, _MAX_EXCL, 0, exclusive_bytes, 0, 0))


def exclusive_bytes(subvolume: Path) -> int:
    """What a subvolume holds or is about to write and no other one shares; 0 when nobody counts."""
    with _opened(subvolume) as fd:
        info = _ioctl(fd, _FS_INFO, bytes(1024))
    digits = info[16:32].hex()
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    group = _SYSFS / name / "qgroups" / f"0_{subvolume_id(subvolume)}"
    try:
        return sum(int((group / name).read_text()) for name in ("exclusive", "rsv_data"))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0
