"""The interpreter's own file, out of reach of containers that have the host's user namespace (CVE-2019-5736).

A program there can be root outside too and can open `/proc/PID/exe` of a process on its way into the container. So the
interpreter runs from a detached read-only clone of its file: whoever writes to that gets EROFS.
"""

from __future__ import annotations

import os
import sys

from runtime.kernel import mounts, syscalls
from runtime.oci.spec import Spec


def shield(spec: Spec) -> None:
    """Execute this process anew from such a clone, once, unless the container has a user namespace. Before anything is made."""
    if spec.linux.namespace("user") or is_shielded():
        return
    fd = mounts.clone(os.path.realpath(sys.executable))
    mounts.add_attributes(fd, syscalls.MOUNT_ATTR_RDONLY, private=True)
    sys.stdout.flush()
    sys.stderr.flush()
    syscalls.execveat(fd, sys.orig_argv, dict(os.environ))


def is_shielded() -> bool:
    """Whether the interpreter's file lies on a read-only mount."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)
