"""System call filters, run by an interpreter of classic BPF."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from runtime.errors import RuntimeFault
from runtime.kernel import btrfs, seccomp
from runtime.kernel.syscall_table import numbers
from runtime.oci import seccomp_profile
from runtime.oci.spec import Seccomp, SeccompArg, SeccompSyscall

ENOSYS, EPERM = seccomp.errno_action(38), seccomp.errno_action(1)
X86 = seccomp.AUDIT_ARCH["x86_64"]


def run(program: bytes, number: int, args: Sequence[int] = (), arch: int = X86) -> int:
    """What the filter answers for one call."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(list(args) + [0] * 6)[:6])
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x25:
                at += yes if accumulator > value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"instruction {code:#x}")


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _default(machine: str, name: str, *args: int) -> int:
    program = seccomp_profile.program(seccomp_profile.default(), machine)
    return run(program, numbers(machine)[name], args, seccomp.AUDIT_ARCH[machine])


def test_everyday_calls_are_allowed(machine: str) -> None:
    names = (
        "read write openat close mmap execve futex clock_gettime socket epoll_pwait getrandom ptrace chroot exit_group"
    )
    for name in names.split():
        assert _default(machine, name) == seccomp.ALLOW, name


def test_every_dangerous_call_is_refused(machine: str) -> None:
    for name in seccomp_profile.DANGEROUS & set(numbers(machine)):
        assert _default(machine, name) == EPERM, name


def test_new_namespaces_are_refused_and_threads_allowed(machine: str) -> None:
    assert _default(machine, "clone", 0x3D0F00) == seccomp.ALLOW  # pthread_create's flags
    for flag in (0x10000000, 0x20000, 0x40000000, 0x02000000, 0x20000000):
        assert _default(machine, "clone", flag | 17) == EPERM
    assert _default(machine, "clone3") == ENOSYS


def test_vsock_and_the_kernels_crypto_sockets_are_refused(machine: str) -> None:
    assert [_default(machine, "socket", family) for family in (1, 2, 38, 40)] == [
        seccomp.ALLOW,
        seccomp.ALLOW,
        EPERM,
        EPERM,
    ]


def test_subvolumes_outside_of_a_disks_size_are_not_made(machine: str) -> None:
    assert _default(machine, "ioctl", 3, 0x5413) == seccomp.ALLOW
    for call in btrfs.SUBVOLUME_MAKERS:
        assert _default(machine, "ioctl", 3, call) == EPERM


def test_what_the_kernel_does_not_look_at_lets_no_call_through(machine: str) -> None:
    assert _default(machine, "ioctl", 3, 1 << 40 | btrfs.SUBVOLUME_MAKERS[0]) == EPERM
    assert _default(machine, "socket", 1 << 40 | 38) == EPERM


def test_unknown_numbers_answer_enosys_and_foreign_architectures_end_the_process(machine: str) -> None:
    program = seccomp_profile.program(seccomp_profile.default(), machine)
    assert run(program, 460, arch=seccomp.AUDIT_ARCH[machine]) == ENOSYS
    assert run(program, 1, arch=0x40000003) == seccomp.KILL_PROCESS


def test_x32_calls_are_refused() -> None:
    program = seccomp_profile.program(seccomp_profile.default(), "x86_64")
    assert run(program, 0x40000000 | 1) == ENOSYS


@pytest.mark.parametrize("op", ["EQ", "NE", "GT", "GE", "LT", "LE"])
@pytest.mark.parametrize("value", [0, 5, 0xFFFFFFFF, 1 << 32, (5 << 32) + 7])
def test_conditions_compare_64_bits(op: str, value: int) -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ERRNO",
        syscalls=(
            SeccompSyscall(
                names=("read",), action="SCMP_ACT_ALLOW", args=(SeccompArg(index=2, value=value, op=f"SCMP_CMP_{op}"),)
            ),
        ),
    )
    program = seccomp_profile.program(profile, "x86_64")
    compare = {"EQ": "__eq__", "NE": "__ne__", "GT": "__gt__", "GE": "__ge__", "LT": "__lt__", "LE": "__le__"}[op]
    for asked in (0, 4, 5, 6, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (5 << 32) + 6, (5 << 32) + 7, (6 << 32)):
        allowed = run(program, 0, (0, 0, asked)) == seccomp.ALLOW
        assert allowed is getattr(asked, compare)(value), (asked, value)


def test_rules_of_one_call_are_tried_in_order_and_numbers_apart_stay_apart() -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        syscalls=(SeccompSyscall(names=("mkdir", "chmod"), action="SCMP_ACT_ERRNO", errno_ret=13),),
    )
    program = seccomp_profile.program(profile, "x86_64")
    table = numbers("x86_64")
    refused = {name for name, number in table.items() if run(program, number) == seccomp.errno_action(13)}
    assert refused == {"mkdir", "chmod"}


def test_an_action_that_is_not_supported_is_named() -> None:
    with pytest.raises(RuntimeFault, match="SCMP_ACT_ASK"):
        seccomp_profile.program(Seccomp(default_action="SCMP_ACT_ASK"))


def test_a_profile_may_hold_for_32_bit_programs_too_each_by_its_own_numbers() -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        syscalls=(SeccompSyscall(names=("mkdir", "socketcall"), action="SCMP_ACT_ERRNO", errno_ret=13),),
    )
    program = seccomp_profile.program(profile, "x86_64")
    refused = seccomp.errno_action(13)
    for machine, names in (("x86_64", {"mkdir"}), ("i386", {"mkdir", "socketcall"})):
        table, arch = numbers(machine), seccomp.AUDIT_ARCH[machine]
        assert {name for name, number in table.items() if run(program, number, arch=arch) == refused} == names
    assert run(program, 1, arch=seccomp.AUDIT_ARCH["aarch64"]) == seccomp.KILL_PROCESS
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
