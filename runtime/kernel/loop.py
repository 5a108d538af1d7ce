"""Loop devices (loop(4), include/uapi/linux/loop.h) and the size limit of an ext4 on one."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOP_MAJOR = 7
_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LO_FLAGS_AUTOCLEAR = 0x4C82, 0x4C0A, 4
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
