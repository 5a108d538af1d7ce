"""The processes of a container, as `docker top` prints them. `ps` itself is not run: its columns are read from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from runtime.engine.container import Container
from runtime.engine.errors import Conflict, Invalid

TICKS = os.sysconf("SC_CLK_TCK")
KB = 1024
FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")  # ps -ef
USER = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")  # ps aux
_SAME = {
    "USER": "UID",
    "START": "STIME",
    "COMMAND": "CMD",
    "ARGS": "CMD",
    "S": "STAT",
    "TT": "TTY",
    "VSIZE": "VSZ",
    "RSZ": "RSS",
}
KNOWN = frozenset({*FULL, *USER, *_SAME, "COMM"})


def columns(arguments: str) -> tuple[str, ...]:
    """The columns that arguments of ps(1) ask for: `-ef`, `aux`, or `-o pid,args`. Raises Invalid for others."""
    words = arguments.split()
    if not words or words == ["-ef"]:
        return FULL
    if words in (["aux"], ["-aux"]):
        return USER
    option, _, first = words[0].lstrip("-").partition("o")
    names = tuple(name.upper() for name in ",".join((first, *words[1:])).split(",") if name)
    if option not in ("", "e") or "o" not in words[0] or not names or not set(names) <= KNOWN:
        raise Invalid(
            f"The arguments {arguments[:100]!r} are not known here.",
            f"Use -ef, aux, or -o with some of {', '.join(sorted(KNOWN)).lower()}.",
        )
    return names


def table(
    container: Container, pids: list[int], titles: tuple[str, ...] = FULL, proc: Path = Path("/proc")
) -> dict[str, Any]:
    """Titles and rows; ids as the container sees them. Raises Conflict when it does not run. Blocks: call it in a thread."""
    if not container.state.is_live:
        raise Conflict(f"Container {container.id} is not running")
    found = (_figures(proc / str(pid), container.record.id_base) for pid in sorted(pids))
    rows = [[figures[_SAME.get(title, title)] for title in titles] for figures in found if figures]
    return {"Titles": list(titles), "Processes": rows}


def _figures(folder: Path, id_base: int) -> dict[str, str]:
    """All columns of a process by their title; empty when it has ended. See proc_pid_stat(5)."""
    try:
        stat = (folder / "stat").read_text()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        owner = folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return {}
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    cpu_s, up_s = (int(fields[11]) + int(fields[12])) / TICKS, _uptime(folder.parent)
    age_s = max(1 / TICKS, up_s - int(fields[19]) / TICKS)
    return {
        "UID": str(owner - id_base if owner >= id_base else owner),
        "PID": folder.name,
        "PPID": fields[1],
        "C": str(int(100 * cpu_s / age_s)),
        "%CPU": f"{100 * cpu_s / age_s:.1f}",
        "%MEM": f"{100 * int(fields[21]) / os.sysconf('SC_PHYS_PAGES'):.1f}",
        "VSZ": str(int(fields[20]) // KB),
        "RSS": str(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // KB),
        "STAT": fields[0],
        "STIME": time.strftime("%H:%M", time.localtime(time.time() - age_s)),
        "TTY": _terminal(int(fields[4])),
        "TIME": f"{int(cpu_s) // 3600:02d}:{int(cpu_s) // 60 % 60:02d}:{int(cpu_s) % 60:02d}",
        "COMM": name,
        "CMD": command or f"[{name}]",
    }


def _terminal(number: int) -> str:
    """A controlling terminal's name; containers have those of a devpts alone, whose majors are 136 to 143."""
    return f"pts/{number & 0xFF | number >> 12 & 0xFFF00}" if 136 <= number >> 8 & 0xFFF <= 143 else "?"


def _uptime(proc: Path) -> float:
    return float((proc / "uptime").read_text().split()[0])
