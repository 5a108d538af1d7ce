"""Pid records: a process is known by pid, start time and boot id, so that a reused pid is never taken for it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from pathlib import Path
from typing import TypedDict


class Record(TypedDict):
    """What is written about a started process. `code` is a digest of what it was started from."""

    pid: int
    start: int  # field 22 of /proc/<pid>/stat, clock ticks since boot
    boot: str
    code: str


def start_time(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None when there is none (proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(path: Path, pid: int, code: str) -> None:
    """Record a process, atomically."""
    record: Record = {"pid": pid, "start": start_time(pid) or 0, "boot": boot_id(), "code": code}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.rename(path)


def read(path: Path) -> Record | None:
    """The record of a process that still lives, else None."""
    try:
        record: Record = json.loads(path.read_text())
        alive = record["boot"] == boot_id() and start_time(record["pid"]) == record["start"]
    except (OSError, ValueError, KeyError):
        return None
    return record if alive else None


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether a process (need not be a child) ended in time; waits on its pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with contextlib.closing(os.fdopen(fd)):
        return bool(select.select([fd], [], [], timeout_s)[0])


def end(record: Record, timeout_s: float = 15) -> None:
    """SIGTERM, then SIGKILL when the time is over."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(record["pid"], signal.SIGTERM)
        if not wait_for_end(record["pid"], timeout_s):
            os.kill(record["pid"], signal.SIGKILL)
            wait_for_end(record["pid"], 5)
