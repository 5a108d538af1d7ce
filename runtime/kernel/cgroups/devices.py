"""The device list on v2: an eBPF program of type CGROUP_DEVICE (include/uapi/linux/bpf.h, struct bpf_cgroup_dev_ctx)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from runtime.kernel import syscalls
from runtime.kernel.cgroups import DeviceRule

_KIND = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_MOV_IMM, _MOV_REG, _AND_IMM, _RSH_IMM, _LOAD32, _JNE, _EXIT = 0xB7, 0xBF, 0x57, 0x77, 0x61, 0x55, 0x95


def _op(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def program(rules: Sequence[DeviceRule]) -> bytes:
    """The instructions: the last rule that matches decides, nothing matching is refused."""
    code = [
        _op(_LOAD32, 2, 1, 0),  # r2: kind of the device; r3: what is asked, both from access_type
        _op(_MOV_REG, 3, 2),
        _op(_RSH_IMM, 3, value=16),
        _op(_AND_IMM, 2, value=0xFFFF),
        _op(_LOAD32, 4, 1, 4),  # r4: major
        _op(_LOAD32, 5, 1, 8),  # r5: minor
    ]
    for rule in reversed(rules):
        code.extend(_rule(rule))
        if rule.kind == "a":  # decides all; the verifier refuses instructions that cannot be reached
            return b"".join(code)
    return b"".join([*code, _op(_MOV_IMM, 0), _op(_EXIT)])


def _rule(rule: DeviceRule) -> list[bytes]:
    tests: list[list[bytes]] = []
    if rule.kind != "a":
        tests.append([_op(_JNE, 2, value=_KIND[rule.kind])])
        if rule.major is not None:
            tests.append([_op(_JNE, 4, value=rule.major)])
        if rule.minor is not None:
            tests.append([_op(_JNE, 5, value=rule.minor)])
        outside = 7 & ~sum(_ACCESS[c] for c in set(rule.access))
        if outside:
            tests.append([_op(_MOV_REG, 1, 3), _op(_AND_IMM, 1, value=outside), _op(_JNE, 1)])
    body = [instruction for test in tests for instruction in test]
    end = [_op(_MOV_IMM, 0, value=int(rule.allow)), _op(_EXIT)]
    return [_skip(op, len(body) - i - 1 + len(end)) for i, op in enumerate(body)] + end


def _skip(op: bytes, offset: int) -> bytes:
    """Give a jump its distance to the next rule; other instructions stay."""
    return op[:2] + struct.pack("<h", offset) + op[4:] if op[0] == _JNE else op


def limit(group: Path, rules: Sequence[DeviceRule]) -> None:
    """Load the rules' program and attach it to a v2 group."""
    loaded = syscalls.bpf_load_device_program(program(rules))
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf_attach_device_program(folder, loaded)
    finally:
        os.close(folder)
        os.close(loaded)
