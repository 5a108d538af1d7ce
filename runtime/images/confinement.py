"""What the children that read and write tenants' files give up before they touch the first one.

Chrooted, nobody, with the few capabilities named, bounded memory, no network, processes or mounts. The engine starts them
(`runtime.images.extract` and `runtime.images.pack`).
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence

from runtime.kernel import capabilities, seccomp, syscalls

NOBODY = 65534
_MEMORY_BYTES = 1 << 30  # a zstd window takes up to 128 MiB of it
_OPEN_FILES = 1024
_CLONE_THREAD = 0x00010000
# Nothing here needs a network, another process or a mount; these answer EPERM.
_REFUSED_CALLS = (
    *("execve", "execveat", "fork", "vfork", "socket", "socketpair", "connect", "bind", "ptrace", "kill", "tkill"),
    *("process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_send_signal", "pidfd_getfd", "mount", "umount2"),
    *("move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr", "pivot_root", "chroot", "unshare", "setns"),
    *("bpf", "keyctl", "add_key", "request_key", "init_module", "finit_module", "kexec_load", "io_uring_setup"),
    *("userfaultfd", "perf_event_open", "swapon", "swapoff", "reboot", "open_by_handle_at", "name_to_handle_at"),
    *("delete_module", "kexec_file_load", "settimeofday", "clock_settime", "sethostname", "setdomainname", "quotactl"),
)


def confine(root: int, file_bytes: int, kept_capabilities: Sequence[str]) -> None:
    """Chroot into the folder `root` and give up every right but `kept_capabilities`; files may grow to `file_bytes`."""
    import bz2  # noqa: F401  (after the chroot nothing can be imported)
    import lzma  # noqa: F401

    from backports import zstd  # noqa: F401
    from isal import igzip_lib  # noqa: F401

    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        resource.setrlimit(kind, (limit, limit))
    os.fchdir(root)
    os.chroot(".")
    os.umask(0)
    kept = capabilities.mask(kept_capabilities)
    capabilities.drop_bounding(kept)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    capabilities.apply(effective=kept, permitted=kept, inheritable=0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp(_filter())


def _filter() -> bytes:
    """The system calls that are refused; threads may be made, processes not (clone3 hides its flags: the C library does without)."""
    refuse = seccomp.Rule((), seccomp.errno_action(errno.EPERM))
    absent = seccomp.errno_action(errno.ENOSYS)
    rules: dict[str, tuple[seccomp.Rule, ...]] = dict.fromkeys(_REFUSED_CALLS, (refuse,))
    thread = seccomp.Condition(0, "MASKED_EQ", _CLONE_THREAD, _CLONE_THREAD)
    rules["clone"] = (seccomp.Rule((thread,), seccomp.ALLOW), refuse)
    rules["clone3"] = (seccomp.Rule((), absent),)
    return seccomp.build(rules, seccomp.ALLOW, machine=os.uname().machine, newer=absent)
