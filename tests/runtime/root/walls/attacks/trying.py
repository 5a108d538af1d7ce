"""What a hostile program tries, run inside a container by an interpreter that is lent to it: `python attacks JSON`.

JSON has `names`, the attacks to try, `calls`, system calls by number, and `target`, what the test tells them. Each attack runs in
a process of its own and one line says how it went: "NAME through", "NAME EPERM" (any errno) or "NAME empty". All are harmless
where they get through: a wrong argument, an errno that only comes behind the check, a change to what the container itself owns.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
GIVEN: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
_CLONE_NEWNS = 0x20000
# The errnos of these calls come behind the kernel's check of rights, so they count as through.
_BEHIND = {"kexec_load": "EINVAL", "reboot": "EINVAL", "swapoff": "ENOENT", "acct": "ENOENT", "syslog": "EINVAL",
           "adjtimex": "EINVAL", "init_module": "ENOEXEC", "delete_module": "ENOENT", "pivot_root": "EINVAL", "bpf": "ENOENT",
           "finit_module": "EBADF", "kexec_file_load": "EBADF"}  # fmt: skip

ATTACKS: dict[str, Callable[[], str | None]] = {}


def attack(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """One of them, by its function's name. It raises OSError, or returns None or "empty"."""
    ATTACKS[function.__name__] = function
    return function


def call(name: str, *arguments: int | bytes | ctypes.Array[Any] | None) -> int:
    """A system call by name; raises OSError."""
    result: int = _libc.syscall(
        ctypes.c_long(GIVEN["calls"][name]),
        *(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments),
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def first(*paths: str) -> str:
    """The first that is there."""
    return next((path for path in paths if os.path.exists(path)), paths[0])


def _outcome(function: Callable[[], str | None]) -> str:
    try:
        return function() or "through"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        return "through" if _BEHIND.get(function.__name__) == name else name


def main() -> None:
    """All that are named, one after another."""
    for name in GIVEN["names"]:
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            _libc.unshare(_CLONE_NEWNS)  # where that is possible, so that no attack spoils the next one's mounts
            os.write(theirs, _outcome(ATTACKS[name]).encode())
            os._exit(0)
        os.close(theirs)
        said = os.read(ours, 100).decode() or "died"
        os.close(ours)
        os.waitpid(pid, 0)
        print(name, said, flush=True)
