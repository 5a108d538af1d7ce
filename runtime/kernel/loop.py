"""Loop devices (loop(4), include/uapi/linux/loop.h) and the size limit of an ext4 on one."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOP_MAJOR = 7
_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_GET_STATUS64, _LO_FLAGS_AUTOCLEAR = 0x4C82, 0x4C0A, 0x4C05, 4
_LOOP_INFO = struct.Struct("=QQ216x")  # lo_device, lo_inode of struct loop_info64
_ATTEMPTS = 64


@contextmanager
def attached(image: int) -> Iterator[str]:
    """A loop device ("loop3") over the open file `image`, that vanishes with its last user (AUTOCLEAR).

    Mount it inside the block: it is let go of at the end. Raises OSError, ENOSPC when no device is free.
    """
    with Path(_CONTROL).open("rb", buffering=0) as control:
        device, number = _configure(control.fileno(), image)
    try:
        yield f"loop{number}"
    finally:
        os.close(device)


@contextmanager
def shared(image: int, device: str | None) -> Iterator[str]:
    """Like `attached`, by the `device` that has this file already, unless that one vanishes meanwhile.

    Who calls this holds a lock on the file, or two would make two.
    """
    fd = _reopened(image, device) if device else -1
    if device is None or fd < 0:
        with attached(image) as made:
            yield made
        return
    try:
        yield device
    finally:
        os.close(fd)


def find(image: Path) -> str | None:
    """Name of the loop device that holds `image` ("loop3"), None when none does.

    Devices are asked for device and inode: `backing_file` shows a path of another mount namespace.
    """
    wanted = _identity(image.stat())
    for folder in Path("/sys/block").glob("loop*/loop"):
        name = folder.parent.name
        with suppress(OSError):  # it was freed meanwhile
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _held(fd) == wanted:
                    return name
            finally:
                os.close(fd)
    return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    """As loop_info64 says it: the device as the kernel encodes it for user space, and the inode."""
    minor, major = os.minor(found.st_dev), os.major(found.st_dev)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12, found.st_ino


def _held(device: int) -> tuple[int, int]:
    return _LOOP_INFO.unpack(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_LOOP_INFO.size)))


def _reopened(image: int, device: str) -> int:
    """Hold a device that still has the file of `image`, -1 when it has not; as long as it is open it keeps it."""
    fd = os.open(f"/dev/{device}", os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError):
        if _held(fd) == _identity(os.fstat(image)):
            return fd
    os.close(fd)
    return -1


def _configure(control: int, image: int) -> tuple[int, int]:
    info = struct.pack("<5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, b"", b"", b"", 0, 0)
    config = struct.pack("<II", image, 0) + info + bytes(64)
    for _ in range(_ATTEMPTS):
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # another process was faster
                raise
            continue
        return device, number
    raise OSError(errno.ENOSPC, "no loop device is free", _CONTROL)


def reserve(device: str, clusters: int) -> None:
    """Take `clusters` blocks of a mounted ext4 from what can be written; grows and shrinks live."""
    Path(f"/sys/fs/ext4/{device}/reserved_clusters").write_text(str(clusters))


def of_folder(folder: Path) -> list[str]:
    """Loop devices whose file lies below `folder`, for finding leftovers."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = Path(backing.read_text().strip())
        except OSError:
            continue
        if file.is_relative_to(folder):
            found.append(backing.parts[3])
    return found
