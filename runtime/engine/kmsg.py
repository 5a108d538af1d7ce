"""Out-of-memory kills as the kernel's log tells them: which process, how much it had, and whose limit it was.

No cgroup file says this: a limit of a team increments the *victim's* counter only. Source: mm/oom_kill.c and memcontrol.c.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

# oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=…,mems_allowed=0,oom_memcg=/m/t/a/i,task_memcg=/m/t/a/i,task=python3,pid=77,uid=0
_KILL = re.compile(
    r"oom-kill:constraint=(\w+),.*?oom_memcg=([^,]*),task_memcg=([^,]*),task=(.{0,15}),pid=(\d+),uid=\d+"
)
# Memory cgroup out of memory: Killed process 77 (python3) total-vm:…kB, anon-rss:…kB, file-rss:…kB, shmem-rss:…kB, …
_KILLED = re.compile(r"Killed process (\d+) .*?anon-rss:(\d+)kB, file-rss:(\d+)kB, shmem-rss:(\d+)kB")


@dataclass(frozen=True, slots=True)
class OomKill:
    """One kill. `limit_group` is the cgroup whose limit was met, `group` the victim's, both relative to the hierarchy's root."""

    limit_group: str
    group: str
    process: str
    pid: int


def parse(record: str) -> OomKill | None:
    """One record of /dev/kmsg (`<prio>,<seq>,<us>,<flags>;<text>`); None when it tells of no memcg kill."""
    _, _, text = record.partition(";")
    match = _KILL.search(text)
    if not match or match[1] != "CONSTRAINT_MEMCG":
        return None
    return OomKill(match[2].strip("/"), match[3].strip("/"), match[4], int(match[5]))


def resident_bytes(record: str) -> tuple[int, int] | None:
    """(pid, resident bytes) of a `Killed process` record."""
    match = _KILLED.search(record)
    return (int(match[1]), 1024 * (int(match[2]) + int(match[3]) + int(match[4]))) if match else None


class KernelLog:
    """Tells `on_kill` of each kill from now on. Where /dev/kmsg cannot be read, kills are seen by their counters only."""

    def __init__(self, on_kill: Callable[[OomKill], None]) -> None:
        self._on_kill = on_kill
        self._fd = -1

    def open(self) -> bool:
        """Begin; False when the kernel's log is not readable here."""
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self.close()
            return False
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return True

    def close(self) -> None:
        """End."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _read(self) -> None:
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # records were overwritten before we read them (EPIPE, Documentation/ABI/testing/dev-kmsg)
            except OSError:
                self.close()
                return
            kill = parse(record.decode(errors="replace"))
            if kill:
                self._on_kill(kill)
