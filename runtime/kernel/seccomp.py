"""System call filters as classic BPF (seccomp(2)): a search tree over system call numbers, conditions at its leaves."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from runtime.dataclass import dataclass
from runtime.kernel.syscall_table import numbers

ALLOW, LOG, KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x7FFF0000, 0x7FFC0000, 0x80000000, 0, 0x30000, 0x50000
NOTIFY, TRACE = 0x7FC00000, 0x7FF00000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}  # include/uapi/linux/audit.h
_X32_BIT = 0x40000000
_ENOSYS = 38
_LOAD, _AND, _JA, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06


@dataclass(frozen=True, slots=True)
class Condition:
    """One argument compared with `value` as 64-bit numbers. `op` is EQ NE GT GE LT LE, or MASKED_EQ with `mask`."""

    index: int
    op: str
    value: int
    mask: int = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Rule:
    """What the filter answers (`action`) when all conditions hold."""

    conditions: tuple[Condition, ...]
    action: int


def errno_action(errno: int) -> int:
    """Refuse with an error number."""
    return ERRNO | errno & 0xFFFF


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def build(
    rules: Mapping[str, Sequence[Rule]], default: int, *, machine: str, newer: int, also: Sequence[str] = ()
) -> bytes:
    """The filter. `rules` are tried in order for each system call's name (names unknown to the machine are left out),
    then `default`. Numbers above all known ones get `newer`; x32 is refused. The same rules hold for system calls of the machines
    in `also` (i386 beside x86_64); any other architecture ends the process."""
    own = [_op(_JEQ, AUDIT_ARCH[machine], 1, 0), _op(_RET, KILL_PROCESS), _op(_LOAD, 0)]
    if machine == "x86_64":
        own += [_op(_JGE, _X32_BIT, 0, 1), _op(_RET, errno_action(_ENOSYS))]
    programs = [b"".join(own) + _calls(rules, default, newer, machine)]
    programs += [_op(_LOAD, 0) + _calls(rules, default, newer, other) for other in also]
    head = b""
    for number, other in enumerate(
        also, start=1
    ):  # a jump over what is left of the head, then over the programs before
        left = 2 * (len(also) - number)
        distance = left + sum(len(program) // 8 for program in programs[:number])
        head += _op(_JEQ, AUDIT_ARCH[other], 0, 1) + _op(_JA, distance)
    return _op(_LOAD, 4) + head + b"".join(programs)


def _calls(rules: Mapping[str, Sequence[Rule]], default: int, newer: int, machine: str) -> bytes:
    """From the number of the call, which is loaded."""
    table = numbers(machine)
    leaves = {table[name]: _leaf(found, default) for name, found in rules.items() if name in table}
    fallback = _op(_RET, default)
    starts: list[tuple[int, bytes]] = [(0, leaves.get(0, fallback))]
    for number in range(1, max(table.values()) + 1):
        leaf = leaves.get(number, fallback)
        if leaf != starts[-1][1]:
            starts.append((number, leaf))
    starts.append((max(table.values()) + 1, _op(_RET, newer)))
    return _tree(starts)


def _tree(starts: Sequence[tuple[int, bytes]]) -> bytes:
    """Leaves by the number they begin at; jumps are forward, at most 255, farther by an unconditional one."""
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    left, right = _tree(starts[:middle]), _tree(starts[middle:])
    distance = len(left) // 8
    if distance < 256:
        return _op(_JGE, starts[middle][0], distance, 0) + left + right
    return _op(_JGE, starts[middle][0], 0, 1) + _op(_JA, distance) + left + right


def _leaf(rules: Sequence[Rule], default: int) -> bytes:
    code = b""
    for rule in rules:
        tests = [_test(condition) for condition in rule.conditions]
        body = b"".join(tests) + _op(_RET, rule.action)
        code += _resolve(body)
        if not rule.conditions:
            return code
    return code + _op(_RET, default)


_FAIL = 255  # a jump to the end of the rule, its distance still unknown


def _resolve(body: bytes) -> bytes:
    """Replace `_FAIL` by the distance to the end."""
    count = len(body) // 8
    out = b""
    for i in range(count):
        code, yes, no, value = struct.unpack_from("<HBBI", body, i * 8)
        distance = count - i - 1
        out += _op(code, value, distance if yes == _FAIL else yes, distance if no == _FAIL else no)
    return out


def _test(c: Condition) -> bytes:
    """Fall through when the condition holds, else jump to the end of the rule. Arguments are at 16 + 8 * index."""
    low, high = c.value & 0xFFFFFFFF, c.value >> 32
    load_low, load_high = _op(_LOAD, 16 + 8 * c.index), _op(_LOAD, 20 + 8 * c.index)
    if c.op in ("EQ", "MASKED_EQ"):
        mask_low, mask_high = _op(_AND, c.mask & 0xFFFFFFFF), _op(_AND, c.mask >> 32)
        return load_high + mask_high + _op(_JEQ, high, 0, _FAIL) + load_low + mask_low + _op(_JEQ, low, 0, _FAIL)
    if c.op == "NE":
        return load_high + _op(_JEQ, high, 0, 2) + load_low + _op(_JEQ, low, _FAIL, 0)
    if c.op in ("GT", "GE"):
        last = _op(_JGT if c.op == "GT" else _JGE, low, 0, _FAIL)
        return load_high + _op(_JGT, high, 3, 0) + _op(_JEQ, high, 0, _FAIL) + load_low + last
    if c.op in ("LT", "LE"):
        last = _op(_JGE if c.op == "LT" else _JGT, low, _FAIL, 0)
        return load_high + _op(_JGT, high, _FAIL, 0) + _op(_JEQ, high, 0, 2) + load_low + last
    raise ValueError(f"comparison {c.op!r}")
