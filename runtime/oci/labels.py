"""AppArmor profiles and SELinux labels: what the next execve takes on, where the kernel has them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.kernel import syscalls
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Process, Spec

_PROC_MAGIC = 0x9FA0  # include/uapi/linux/magic.h


@cache
def has_apparmor() -> bool:
    """Whether the kernel confines by AppArmor."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


@cache
def has_selinux() -> bool:
    """Whether the kernel confines by SELinux."""
    return Path("/sys/fs/selinux/enforce").exists()


def check(spec: Spec) -> None:
    """Raise SpecFault for what the kernel lacks."""
    if spec.process.apparmor_profile and not has_apparmor():
        raise SpecFault(
            f"This kernel has no AppArmor for the profile {spec.process.apparmor_profile}.",
            "Leave apparmorProfile out.",
        )
    if (spec.process.selinux_label or spec.linux.mount_label) and not has_selinux():
        raise SpecFault("This kernel has no SELinux.", "Leave selinuxLabel and mountLabel out.")


def set_exec(process: Process) -> None:
    """For the next execve of this process, through its own /proc, which is looked at first: the image may have lied."""
    wanted = [f"exec {process.apparmor_profile}"] if process.apparmor_profile else []
    wanted += [process.selinux_label] if process.selinux_label else []
    for text in wanted:
        fd = os.open("/proc/self/attr/exec", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if syscalls.fstatfs_type(fd) != _PROC_MAGIC:
                raise RuntimeFault("/proc is not the kernel's, so no label can be set.", "Mount proc on /proc.")
            os.write(fd, text.encode())
        finally:
            os.close(fd)
