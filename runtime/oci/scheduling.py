"""How a program is scheduled, and which kernel it believes to run on: scheduler, I/O priority, personality."""

from __future__ import annotations

import os

from runtime.kernel import syscalls
from runtime.oci.fields import SpecFault
from runtime.oci.spec import IoPriority, Personality, Process, Scheduler

# include/uapi/linux/sched.h, ioprio.h, personality.h
_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
_MAX_IO_PRIORITY = 7


def check(process: Process, personality: Personality | None) -> None:
    """Raise SpecFault for a word or number that is none."""
    scheduler, io = process.scheduler, process.io_priority
    if scheduler:
        _known("process.scheduler.policy", scheduler.policy, _POLICIES)
        for flag in scheduler.flags:
            _known("process.scheduler.flags", flag, _FLAGS)
    if process.exec_cpu_affinity:
        for text in (process.exec_cpu_affinity.initial, process.exec_cpu_affinity.final):
            cpus(text or "0")
    if io:
        _known("process.ioPriority.class", io.scheduling_class, _IO_CLASSES)
        if not 0 <= io.priority <= _MAX_IO_PRIORITY:
            raise SpecFault(
                f"process.ioPriority.priority is {io.priority}.", f"It lies between 0 and {_MAX_IO_PRIORITY}."
            )
    if personality:
        _known("linux.personality.domain", personality.domain, _PERSONALITIES)
        if personality.flags:
            raise SpecFault("linux.personality.flags are set.", "The specification has none so far: leave them out.")


def _known(name: str, word: str, table: dict[str, int]) -> None:
    if word not in table:
        raise SpecFault(f"{name} is {word!r}.", f"There are {', '.join(table)}.")


def cpus(text: str) -> set[int]:
    """The CPUs of a list like "0-3,7"; raises SpecFault."""
    found: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split("-")
        if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends):
            raise SpecFault(f"{text[:80]!r} is no list of CPUs.", "Give one like 0-3,7.")
        found |= set(range(int(ends[0]), int(ends[-1]) + 1))
    return found


def apply(process: Process, personality: Personality | None) -> None:
    """For this process; what needs rights is done while it has them."""
    if personality:
        syscalls.personality(_PERSONALITIES[personality.domain])
    if process.io_priority:
        syscalls.ioprio_set(0, _io(process.io_priority))
    if process.scheduler:
        _schedule(process.scheduler)


def _io(io: IoPriority) -> int:
    return _IO_CLASSES[io.scheduling_class] << 13 | io.priority


def _schedule(s: Scheduler) -> None:
    flags = sum(_FLAGS[flag] for flag in set(s.flags))
    if s.policy == "SCHED_OTHER" and not flags:
        os.setpriority(os.PRIO_PROCESS, 0, s.nice)
        return
    syscalls.sched_setattr(
        0, policy=_POLICIES[s.policy], flags=flags, nice=s.nice, priority=s.priority,
        runtime=s.runtime, deadline=s.deadline, period=s.period,
    )  # fmt: skip
