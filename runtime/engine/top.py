"""The processes of a container, as `docker top` prints them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from runtime.engine.container import Container
from runtime.engine.errors import Conflict

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
TICKS = 100


def table(container: Container, pids: list[int], proc: Path = Path("/proc")) -> dict[str, Any]:
    """Titles and rows; ids as the container sees them. Raises Conflict when it does not run. Blocks: call it in a thread."""
    if not container.state.is_live:
        raise Conflict(f"Container {container.id} is not running")
    rows = (_row(proc / str(pid), container.record.id_base) for pid in sorted(pids))
    return {"Titles": TITLES, "Processes": [row for row in rows if row]}


def _row(folder: Path, id_base: int) -> list[str]:
    try:
        stat = (folder / "stat").read_text()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        owner = folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return []
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    seconds = (int(fields[11]) + int(fields[12])) // TICKS
    started = time.time() - _uptime(folder.parent) + int(fields[19]) / TICKS
    return [
        str(owner - id_base if owner >= id_base else owner),
        folder.name,
        fields[1],
        "0",
        time.strftime("%H:%M", time.localtime(started)),
        "?",
        f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        command or f"[{name}]",
    ]


def _uptime(proc: Path) -> float:
    return float((proc / "uptime").read_text().split()[0])
