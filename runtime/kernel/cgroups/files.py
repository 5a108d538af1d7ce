"""Reading and writing the small files of a cgroup hierarchy."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runtime.kernel.cgroups import Moved

REMOVE_DEADLINE_S = 5.0
PIECE_BYTES = 65_536


def write(path: str | Path, *values: str | int) -> None:
    """One write(2) for each value, as these files want it; the path is in the error."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            os.write(fd, str(value).encode())
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(fd)


def read(path: str | Path) -> str:
    """The content; "" when the file is not there (a controller the kernel lacks)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a third of the time that a file object takes
    except FileNotFoundError:
        return ""
    try:
        data = os.read(fd, PIECE_BYTES)
        while piece := os.read(fd, PIECE_BYTES):  # a short answer is not the end: seq_file gives a page at a time
            data += piece
    finally:
        os.close(fd)
    return data.decode("ascii")


def number(text: str) -> int:
    """A count; 0 for "max", for nothing, and for v1's way to say unlimited (near 2**63)."""
    word = text.strip()
    if not word.lstrip("-").isdigit():
        return 0
    value = int(word)
    return value if 0 <= value < 1 << 62 else 0


def flat(text: str) -> dict[str, int]:
    """A flat keyed file ("key value" lines); lines of another shape are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def total(devices: Mapping[str, Moved]) -> Moved:
    """The sum over all devices."""
    return Moved(*map(sum, zip(*devices.values(), strict=True))) if devices else Moved()


def swap_free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Swap the host has left (proc(5), meminfo); 0 without swap."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "SwapFree:"), 0)


def below(folder: Path) -> Iterator[Path]:
    """The folder and all below it, children first; nothing when it is gone."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for entry in entries:
        yield from below(entry)
    yield folder


def pids(folder: Path) -> list[int]:
    """Process ids in the folder and all below it."""
    found: list[int] = []
    for group in below(folder):
        with contextlib.suppress(OSError):
            found.extend(int(word) for word in (group / "cgroup.procs").read_text().split())
    return [pid for pid in found if pid]


def signal_all(folder: Path, signum: int = signal.SIGKILL) -> int:
    """Signal every process in the folder and below; returns how many there were."""
    found = pids(folder)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
    return len(found)


def until(done: Callable[[], bool], deadline_s: float = REMOVE_DEADLINE_S) -> bool:
    """Ask again, ever more slowly up to 20 ms, until true; the kernel sends no event for what is asked here."""
    end = time.monotonic() + deadline_s
    pause = 0.0005
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def remove_tree(folder: Path, before: Callable[[Path], None] | None = None) -> bool:
    """rmdir the folder and all below it, waiting for processes that are on their way out; False when one stays."""

    def gone() -> bool:
        for group in below(folder):
            if before:
                before(group)
            try:
                group.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return not folder.exists()

    return until(gone)
