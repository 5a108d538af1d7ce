"""A page of memory that the processes under test share with the test: where one of them is to stand still, and whether it does.

It is inherited through every fork and clone, and needs neither files nor descriptors in a container's own root.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

from runtime.kernel.syscall_table import numbers

_PAGE = 4096
_OFF, _ARMED, _REACHED = 0, 1, 2
_NAME_AT = 64
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1  # include/uapi/linux/futex.h
_FUTEX = numbers(os.uname().machine)["futex"]
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class Board:
    """One place at a time: the test arms it, the first process that comes there stands until it is let go or killed."""

    def __init__(self, path: Path | str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _PAGE)
        self._page = mmap.mmap(fd, _PAGE)
        os.close(fd)
        self._word = ctypes.c_uint32.from_buffer(self._page)

    def arm(self, place: str) -> None:
        """Whoever comes to this place next stands still."""
        name = place.encode()
        self._page[_NAME_AT : _NAME_AT + len(name) + 1] = name + b"\0"
        self._set(_ARMED)

    def reached(self, timeout_s: float) -> bool:
        """Wait until somebody stands there."""
        end = time.monotonic() + timeout_s
        while self._word.value == _ARMED and (left := end - time.monotonic()) > 0:
            self._wait(_ARMED, left)
        return self._word.value == _REACHED

    def let_go(self) -> None:
        """Let who stands there go on, and nobody stand any more."""
        self._set(_OFF)

    def come(self, place: str) -> None:
        """In a process under test: it is at a place."""
        if self._word.value != _ARMED or self._armed() != place:
            return
        self._set(_REACHED)
        while self._word.value == _REACHED:
            self._wait(_REACHED)

    def _armed(self) -> str:
        return self._page[_NAME_AT : self._page.find(b"\0", _NAME_AT)].decode()

    def _set(self, value: int) -> None:
        self._word.value = value
        self._futex(_FUTEX_WAKE, 1 << 20, None)

    def _wait(self, value: int, timeout_s: float = 0) -> None:
        at_most = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
        self._futex(_FUTEX_WAIT, value, ctypes.byref(at_most) if timeout_s else None)

    def _futex(self, operation: int, value: int, timeout: object) -> None:
        _libc.syscall(ctypes.c_long(_FUTEX), ctypes.byref(self._word), operation, value, timeout, None, 0)
