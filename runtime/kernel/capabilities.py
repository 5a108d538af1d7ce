"""Capability names and sets (capabilities(7), include/uapi/linux/capability.h)."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import RuntimeFault
from runtime.kernel import syscalls

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
_BIT = {f"CAP_{name}": number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """The bit mask of a set; raises RuntimeFault for a name that is none."""
    result = 0
    for name in names:
        if name not in _BIT:
            raise RuntimeFault(f"{name} is no capability.", "capabilities(7) lists them.")
        result |= 1 << _BIT[name]
    return result


def drop_bounding(keep: int) -> None:
    """Drop every capability outside `keep` from the bounding set. Needs CAP_SETPCAP."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError:  # EINVAL: the kernel knows no further ones
            return


def apply(*, effective: int, permitted: int, inheritable: int, ambient: int = 0) -> None:
    """Set the thread's sets; ambient ones must be permitted and inheritable."""
    syscalls.capset(effective, permitted, inheritable)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
