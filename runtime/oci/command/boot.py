"""The first lines of the command line: what must come before its modules are loaded, and what makes loading them cheap.

A start of `python -I -S` is 10 ms of the whole; nearly all of the rest is loading, so nothing is loaded here that is not needed.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTO_CONTAINERS = {"create", "run", "exec"}


class _Inspect(ModuleType):
    """Stands for `inspect`, which takes 20 ms to load: dataclasses wants two short functions of it, for each class."""

    @staticmethod
    def get_annotations(cls: type) -> dict[str, object]:
        """As inspect.get_annotations."""
        return dict(cls.__dict__.get("__annotations__", {}))  # noqa: RUF063  (this is that function)

    @staticmethod
    def unwrap(function: object) -> object:
        """As inspect.unwrap."""
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        return function

    def __getattr__(self, name: str) -> object:
        if sys.modules.get("inspect") is self:
            del sys.modules["inspect"]
        return getattr(importlib.import_module("inspect"), name)


def main(argv: list[str]) -> NoReturn:
    """As main.main, and ends the process."""
    gc.disable()  # nothing here lives long enough to be worth a look
    if _INTO_CONTAINERS.intersection(argv) and not is_shielded():
        shield()
    if sys.version_info < (3, 14):  # whose dataclasses do without
        sys.modules.setdefault("inspect", _Inspect("inspect"))
    from runtime.oci.command.main import main as carry_out

    status = carry_out(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # at once: to take an interpreter apart is 7 ms


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
