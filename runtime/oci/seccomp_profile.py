"""System call filters: the specification's form made into a program, and the engine's default one, after Docker's.

The default allows by list: what Linux 6.1 offers without the two lists below. What is newer answers ENOSYS, as does clone3,
whose flags a filter cannot see, so that libraries fall back to clone.
"""

from __future__ import annotations

import os
from functools import cache

from runtime.errors import RuntimeFault
from runtime.kernel import btrfs, seccomp, syscalls
from runtime.kernel.syscall_table import numbers
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Seccomp, SeccompArg, SeccompSyscall

_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* but NEWTIME, which clone cannot ask for
_AF_ALG, _AF_VSOCK = 38, 40
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)

_DANGEROUS = """
    acct add_key bpf clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
    get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
    kexec_load keyctl lookup_dcookie mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise query_module quotactl quotactl_fd
    reboot request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon
    syslog umount2 unshare uselib userfaultfd vhangup
"""
_UNOFFERED = "_sysctl afs_syscall clone3 getpmsg putpmsg security sysfs tuxcall ustat vserver"
DANGEROUS = frozenset(_DANGEROUS.split())
_CONDITIONAL = frozenset(("clone", "personality"))

NOTIFY = "SCMP_ACT_NOTIFY"
_OTHERS = tuple(f"SCMP_ARCH_{name}" for name in ("MIPS", "PPC", "S390", "PARISC", "RISCV", "LOONGARCH", "M68K", "SH"))
OPERATORS = tuple(f"SCMP_CMP_{op}" for op in ("EQ", "NE", "GT", "GE", "LT", "LE", "MASKED_EQ"))
ARCHES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_AARCH64": "aarch64"}
# Profiles for all machines name these too; their calls are refused (x32) or end the process, whatever the rules say.
_WITHOUT_TABLE = ("SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_NATIVE")
_NEW_LISTENER = 1 << 3
FLAGS = {  # include/uapi/linux/seccomp.h
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
_OWN = frozenset(
    ("sendmsg", "recvmsg", "close", "accept4", "poll", "execve", "write", "read")
)  # of an init at its gate

ACTIONS = {
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
    "SCMP_ACT_LOG": seccomp.LOG,
    "SCMP_ACT_KILL": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": seccomp.TRAP,
    NOTIFY: seccomp.NOTIFY,
}


@cache
def default() -> Seccomp:
    """The engine's profile."""
    known = set(numbers("x86_64")) | set(numbers("aarch64"))
    allowed = known - DANGEROUS - frozenset(_UNOFFERED.split()) - _CONDITIONAL
    clone = SeccompArg(index=0, value=_NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ")
    # A subvolume of btrfs that a tenant makes would be outside of the writable layer's size.
    refused = [_refused("socket", 0, family) for family in (_AF_ALG, _AF_VSOCK)]
    refused += [_refused("ioctl", 1, call) for call in btrfs.SUBVOLUME_MAKERS]
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=_ENOSYS,
        syscalls=(
            *refused,
            SeccompSyscall(names=tuple(sorted(allowed)), action="SCMP_ACT_ALLOW"),
            SeccompSyscall(names=("clone",), action="SCMP_ACT_ALLOW", args=(clone,)),
            *(
                SeccompSyscall(
                    names=("personality",),
                    action="SCMP_ACT_ALLOW",
                    args=(SeccompArg(index=0, value=value, op="SCMP_CMP_EQ"),),
                )
                for value in _PERSONALITIES
            ),
            SeccompSyscall(names=tuple(sorted(DANGEROUS | _CONDITIONAL)), action="SCMP_ACT_ERRNO", errno_ret=_EPERM),
        ),
    )


def _refused(name: str, index: int, value: int) -> SeccompSyscall:
    """A call with an argument of 32 bits: the kernel does not look at the upper half, so a filter must not either."""
    argument = SeccompArg(index=index, value=0xFFFFFFFF, value_two=value, op="SCMP_CMP_MASKED_EQ")
    return SeccompSyscall(names=(name,), action="SCMP_ACT_ERRNO", errno_ret=_EPERM, args=(argument,))


@cache
def program(profile: Seccomp, machine: str = os.uname().machine) -> bytes:
    """The BPF program of a profile; raises RuntimeFault naming an action or comparison that is not supported."""
    rules: dict[str, list[seccomp.Rule]] = {}
    for entry in profile.syscalls:
        rule = seccomp.Rule(tuple(_condition(arg) for arg in entry.args), _action(entry.action, entry.errno_ret))
        for name in entry.names:
            rules.setdefault(name, []).append(rule)
    default_action = _action(profile.default_action, profile.default_errno_ret)
    refuses = profile.default_action == "SCMP_ACT_ERRNO"
    newer = seccomp.errno_action(_ENOSYS) if refuses else default_action
    return seccomp.build(rules, default_action, machine=machine, newer=newer, also=_beside(profile, machine))


def _beside(profile: Seccomp, machine: str) -> tuple[str, ...]:
    """Machines whose programs this one runs too, of those the profile names."""
    return ("i386",) if machine == "x86_64" and "SCMP_ARCH_X86" in profile.architectures else ()


def install(profile: Seccomp) -> int:
    """Confine this process; returns the descriptor of a filter that notifies, else -1."""
    flags = sum(FLAGS[name] for name in set(profile.flags))
    notifies = profile.default_action == NOTIFY or any(entry.action == NOTIFY for entry in profile.syscalls)
    if not notifies:
        syscalls.seccomp(program(profile), flags)
        return -1
    return syscalls.seccomp(program(profile), flags | _NEW_LISTENER)


def check(profile: Seccomp) -> None:
    """Raise SpecFault or RuntimeFault for what is not supported or would stop the runtime itself."""
    for name in profile.flags:
        if name not in FLAGS:
            raise SpecFault(f"linux.seccomp.flags has {name!r}.", f"There are {', '.join(FLAGS)}.")
    for name in profile.architectures:
        if name not in ARCHES and name not in _WITHOUT_TABLE and not name.startswith(_OTHERS):
            raise SpecFault(f"linux.seccomp.architectures has {name!r}.", f"There are {', '.join(ARCHES)}.")
    notified = {name for entry in profile.syscalls if entry.action == NOTIFY for name in entry.names}
    if profile.default_action == NOTIFY or notified & _OWN:
        raise SpecFault(
            f"{NOTIFY} on {', '.join(sorted(notified & _OWN)) or 'everything'} would stop the runtime before the program runs.",
            "Notify on other system calls.",
        )
    if notified and not profile.listener_path:
        raise SpecFault(f"{NOTIFY} is used and linux.seccomp.listenerPath is missing.", "Name the socket of the agent.")
    program(profile)


def _action(name: str, errno: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return seccomp.errno_action(_EPERM if errno is None else errno)
    if name == "SCMP_ACT_TRACE":
        return seccomp.TRACE | (_EPERM if errno is None else errno) & 0xFFFF
    if name not in ACTIONS:
        raise RuntimeFault(f"The seccomp action {name} is not supported.", f"Supported: {', '.join(ACTIONS)}.")
    return ACTIONS[name]


def _condition(arg: SeccompArg) -> seccomp.Condition:
    op = arg.op.removeprefix("SCMP_CMP_")
    if not 0 <= arg.index <= 5 or f"SCMP_CMP_{op}" not in OPERATORS:
        raise RuntimeFault(f"The seccomp condition {arg.op} on argument {arg.index} is not supported.")
    if min(arg.value, arg.value_two) < 0:
        raise SpecFault("A seccomp condition has a negative value.", "Give it as an unsigned number of 64 bits.")
    if op == "MASKED_EQ":
        return seccomp.Condition(arg.index, op, arg.value_two, arg.value)
    return seccomp.Condition(arg.index, op, arg.value)
