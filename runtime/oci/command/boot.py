"""The first lines of the command line: what must come before its modules are loaded, and what makes loading them cheap.

A start of `python -I -S` is 10 ms of the whole; nearly all of the rest is loading, so nothing is loaded here that is not needed.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

_INTO_CONTAINERS = {"create", "run", "exec"}


class _Later(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        sys.modules.pop(self.__name__, None)
        return getattr(__import__(self.__name__), name)


def main(argv: list[str]) -> int:
    """As main.main."""
    if _INTO_CONTAINERS.intersection(argv) and not is_shielded():
        shield()
    sys.modules.setdefault(
        "inspect", _Later("inspect")
    )  # dataclasses loads it, 10 ms, and needs it for no class of ours
    from runtime.oci.command.main import main as carry_out

    return carry_out(argv)


def shield() -> None:
    """Execute this process anew from a detached read-only clone of the interpreter's file (CVE-2019-5736).

    A program in a container without a user namespace is root outside too, and can open `/proc/PID/exe` of a process on its way
    into the container: whoever writes there gets EROFS. Returns where that cannot be done, for want of rights.
    """
    from runtime.kernel import syscalls

    try:
        fd = syscalls.open_tree(syscalls.AT_FDCWD, os.path.realpath(sys.executable), syscalls.OPEN_TREE_CLONE)
        syscalls.mount_setattr(fd, attr_set=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    except PermissionError:
        return
    syscalls.execveat(fd, sys.orig_argv, dict(os.environ))


def is_shielded() -> bool:
    """Whether the interpreter's file lies on a read-only mount."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)
