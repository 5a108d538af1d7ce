"""Limits that were hit, told as events of Type `moorage`, Action `limit`, each with a sentence."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from runtime.engine import sentences
from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.kmsg import KernelLog, OomKill
from runtime.engine.limits import Limits
from runtime.engine.stats import Reading, Stats

PASS_S = 2.0
CPU_WINDOW = 5  # passes
CPU_SHARE = 0.5
CPU_PERIODS = 50
QUIET_S = 60.0
OOM_QUIET_S = 5.0
DISK_FULL, DISK_RELAXED = 0.98, 0.95


@dataclass(slots=True)
class Watched:
    """What is remembered of a container between passes."""

    readings: deque[Reading] = field(default_factory=lambda: deque(maxlen=CPU_WINDOW + 1))
    said: dict[str, float] = field(default_factory=dict)
    disk_full: bool = False
    refused: int = 0  # forks refused so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One limit that was hit."""

    limit: str
    used: float
    allowed: float
    sentence: str
    level: str = "instance"
    process: str = ""


def hits_of(watched: Watched, now: Reading, millicores: int) -> list[Hit]:
    """What the newest reading says beside those before it. Pure but for `watched`, which remembers the reading."""
    found = [*_pids(watched, now), *_memory(watched, now), *_cpu(watched, now, millicores), *_disk(watched, now)]
    watched.readings.append(now)
    return found


def _pids(watched: Watched, now: Reading) -> list[Hit]:
    g = now.group
    refused = now.forks_refused > watched.refused
    watched.refused = now.forks_refused
    if not g.pids_limit or not (refused or g.pids >= g.pids_limit):
        return []
    sentence = sentences.pids_sentence(g.pids, g.pids_limit)
    return [Hit(limit="pids", used=g.pids, allowed=g.pids_limit, sentence=sentence)]


def _memory(watched: Watched, now: Reading) -> list[Hit]:
    if not watched.readings or now.group.oom_kills <= watched.readings[-1].group.oom_kills:
        return []
    limit = now.group.memory_limit_bytes
    sentence = sentences.oom_sentence(now.ns, "", limit, limit, "instance")
    return [Hit(limit="memory", used=limit, allowed=limit, sentence=sentence)]


def _cpu(watched: Watched, now: Reading, millicores: int) -> list[Hit]:
    if not watched.readings or not millicores:
        return []
    first, g = watched.readings[0], now.group
    periods = g.periods - first.group.periods
    share = (g.throttled_periods - first.group.throttled_periods) / periods if periods >= CPU_PERIODS else 0
    if share < CPU_SHARE:
        return []
    elapsed_ns = max(1, now.ns - first.ns)
    used = (g.cpu_ns - first.group.cpu_ns) / elapsed_ns * 1000
    sentence = sentences.cpu_sentence(share, elapsed_ns / 1e9, millicores / 1000)
    return [Hit(limit="cpu", used=round(used), allowed=millicores, sentence=sentence)]


def _disk(watched: Watched, now: Reading) -> list[Hit]:
    used, size = now.disk.used_bytes, now.disk.size_bytes
    if not size or used < size * DISK_RELAXED:
        watched.disk_full = False
        return []
    if watched.disk_full or used < size * DISK_FULL:
        return []
    watched.disk_full = True
    return [Hit(limit="disk", used=used, allowed=size, sentence=sentences.disk_sentence(used, size))]


class Alarms:
    """One pass every two seconds while anything runs, and the kernel's log in between."""

    def __init__(self, core: Core, stats: Stats, limits: Limits) -> None:
        self._core = core
        self._stats = stats
        self._limits = limits
        self._watched: dict[str, Watched] = {}
        self._kernel = KernelLog(self.on_kill)

    def open(self) -> None:
        """Begin."""
        self._kernel.open()
        self._core.spawn(self._run(), "alarms")

    def close(self) -> None:
        """Stop reading the kernel's log."""
        self._kernel.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PASS_S)
            if any(c.state.is_live for c in self._core.registry):
                await self.look()

    async def look(self) -> None:
        """One pass."""
        readings = await self._stats.sample_all()
        for gone in self._watched.keys() - readings.keys():
            del self._watched[gone]
        for container in self._core.registry:
            reading = readings.get(container.id)
            if reading is None:
                continue
            watched = self._watched.get(container.id)
            if watched is None:
                known = 0 if container.life.started_ns > self._core.started_ns else reading.forks_refused
                watched = self._watched[container.id] = Watched(refused=known)
            if watched.readings and reading is watched.readings[-1]:
                continue
            for hit in hits_of(watched, reading, container.record.host.resources.millicores):
                self._say(container, watched, hit)

    def _say(self, container: Container, watched: Watched, hit: Hit) -> None:
        quiet = OOM_QUIET_S if hit.limit == "memory" else QUIET_S
        now = time.monotonic()
        if now - watched.said.get(hit.limit, -1e9) < quiet:
            return
        watched.said[hit.limit] = now
        self.emit(container, hit)

    def emit(self, container: Container, hit: Hit) -> None:
        """Tell of one hit."""
        figures = {
            "limit": hit.limit,
            "level": hit.level,
            "used": f"{hit.used:.0f}",
            "allowed": f"{hit.allowed:.0f}",
            "process": hit.process,
            "sentence": hit.sentence,
        }
        self._core.events.emit("moorage", "limit", container.id, {**container.attributes, **figures})

    def on_kill(self, kill: OomKill) -> None:
        """A kill in the kernel's log: ours when the victim lies below our root."""
        root = self._core.cgroup_root
        if not kill.group.startswith(root + "/"):
            return
        victim = next((c for c in self._core.registry if c.cgroup and kill.group.startswith(c.cgroup)), None)
        if victim is None:
            return
        path = kill.limit_group.removeprefix(root).strip("/")
        level = level_of(path)
        allowed = (victim.record.host.resources if level == "instance" else self._limits.group(path)).memory
        sentence = sentences.oom_sentence(time.time_ns(), kill.process, allowed, allowed, level)
        victim.oom_note = sentence[0].upper() + sentence[1:]
        hit = Hit(limit="memory", level=level, used=allowed, allowed=allowed, process=kill.process, sentence=sentence)
        watched = self._watched.setdefault(victim.id, Watched())
        watched.said["memory"] = time.monotonic()
        self.emit(victim, hit)


def level_of(path: str) -> str:
    """Whose limit a group below the root is: team, app or instance."""
    depth = path.count("/") + 1 if path else 0
    return {1: "team", 2: "app"}.get(depth, "instance") if not path.startswith("default/") else "instance"
