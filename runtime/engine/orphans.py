"""Launchers, monitors and crews of one state directory that serve nobody: those of an engine that was killed, stopped or stuck."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

ENDING_S = 3.0


def mark(short: str) -> str:
    """The last argument of the launcher of a state, by its short id, and so of all it forks: whose they are."""
    return f"moorage-{short}"


def family(short: str) -> set[int]:
    """The launcher of a state and what it forked, whoever's child it is now: what runs no program of a container's."""
    return {pid for pid in _parents() if _is_marked(pid, mark(short))}


def orphans(short: str, engine: int, monitors: Mapping[str, int]) -> list[str]:
    """`<pid> <name>` of each that neither descends from the engine (a pid, 0 for none) or one of `monitors`, by the ids of
    containers that live, nor runs a program in one of these. What is about to end is given the time."""
    deadline = time.monotonic() + ENDING_S
    served = {engine, *monitors.values()} - {0}
    while (found := _serving_nobody(mark(short), served, set(monitors))) and time.monotonic() < deadline:
        time.sleep(0.05)  # they end when a socket closes, and nobody is told
    return found


def _serving_nobody(marked: str, served: set[int], living: set[str]) -> list[str]:
    parents = _parents()
    forked = {pid for pid in parents if _is_marked(pid, marked)}
    executing = {parent for pid, parent in parents.items() if pid not in forked and _is_inside(pid, living)}
    return [
        f"{pid} {_read(pid, 'comm').decode().strip()}"
        for pid in sorted(forked)
        if not (served | executing) & _ancestry(pid, parents)
    ]


def _ancestry(pid: int, parents: dict[int, int]) -> set[int]:
    """A process and those above it."""
    found = set[int]()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def _parents() -> dict[int, int]:
    """Every process with its parent (proc_pid_stat(5)); zombies are none."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (thousands of Path objects else)
        if name.isdigit() and (stat := _read(int(name), "stat")):
            state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
            if state not in (b"Z", b"X"):
                found[int(name)] = int(parent)
    return found


def _is_marked(pid: int, marked: str) -> bool:
    return _read(pid, "cmdline").endswith(f"\0{marked}\0".encode())


def _is_inside(pid: int, containers: set[str]) -> bool:
    """Whether a process is in a group that is named after one of these."""
    return not containers.isdisjoint(_read(pid, "cgroup").decode().replace("\n", "/").split("/"))


def _read(pid: int, name: str) -> bytes:
    """A file of a process that may end meanwhile."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
