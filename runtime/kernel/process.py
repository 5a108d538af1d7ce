"""Knowing a process again: pid, start time and boot id together name one process for ever."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Self

from runtime.dataclass import dataclass

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process. `start_ticks` is field 22 of proc_pid_stat(5)."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """The reference of a living process; raises ProcessLookupError."""
        ticks = start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, ticks, boot_id())

    def alive(self) -> bool:
        """Whether this very process runs (a zombie counts as ended)."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks

    def open(self) -> int | None:
        """A pidfd on it, None when it has ended. The check after opening closes the race with a re-used pid."""
        if not self.alive():
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive():
            return pidfd
        os.close(pidfd)
        return None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens when it has ended."""
        pidfd = self.open()
        if pidfd is None:
            return
        try:
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


@cache
def boot_id() -> str:
    """This boot's random id."""
    return BOOT_ID.read_text().strip()


def read_small(path: str, limit: int = 4096) -> bytes:
    """The first bytes of a small file by bare system calls: a monitor's memory pays for every Python object it touches."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def write_small(path: str, data: bytes) -> None:
    """One write(2) to a file that is made when it is missing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def replace_small(path: str, data: bytes, mode: int = 0o600) -> None:
    """One write(2) over whatever the file held; for what nobody reads meanwhile."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it has ended or is a zombie."""
    try:
        stat = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def runs(child: int) -> bool:
    """Whether a child of this process has not ended. It stays to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def children() -> list[int]:
    """This single-threaded process's children, ended ones included; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return [int(pid) for pid in read_small(f"/proc/self/task/{os.getpid()}/children", 65536).split()]
    except FileNotFoundError:
        return []


def set_name(name: str) -> None:
    """Name this process for `ps` (15 bytes)."""
    write_small("/proc/self/comm", name[:15].encode())


def fork(child: Callable[[], None]) -> int:
    """Run `child` in a forked process that always ends in _exit (0, or 1 when it raised); returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    except BaseException:  # noqa: BLE001  the last frame of a forked process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def wait_pidfd(pidfd: int) -> tuple[int, int]:
    """Wait for a child: (exit code with 128 + signal, signal or 0)."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    if result.si_code == os.CLD_EXITED:
        return result.si_status, 0
    return 128 + result.si_status, result.si_status


def write_atomic(path: Path, data: bytes, *, durable: bool = False, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old or the new one; `durable` waits for the disk too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    if durable:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
