"""Limits that were hit, told as events of Type `moorage`, Action `limit`, each with a sentence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runtime.engine import sentences
from runtime.engine.container import Container
from runtime.engine.core import Core, log
from runtime.engine.episodes import Watched
from runtime.engine.hits import Hit, Level, Moment, Processes, fullest
from runtime.engine.kmsg import KernelLog, OomKill
from runtime.engine.limits import Limits
from runtime.engine.stats import GroupReading, Reading, Stats, parents
from runtime.errors import RuntimeFault
from runtime.kernel.cgroups import Marks

PASS_S = 2.0
KILLS_S = 5.0  # kills that come quicker are told together
AFTER_KILL_S = 60.0  # a kill says more than that memory was short
CONCERNED = 0.05  # of what a group used: below it a limit of the group is nothing to an app
LEVELS: tuple[Level, ...] = ("team", "app")


@dataclass(slots=True)
class Kills:
    """Kills in one container: when the last was told, and those since then."""

    told_at: float = -1e9
    untold: int = 0
    last: Hit | None = None


@dataclass(slots=True)
class OfContainer:
    """What is remembered of one run of a container."""

    started_ns: int
    watched: Watched = field(default_factory=Watched)
    kills: Kills = field(default_factory=Kills)


class Alarms:
    """Judges every pass of the counters, sees to it that there is one each PASS_S, and reads the kernel's log in between."""

    def __init__(self, core: Core, stats: Stats, limits: Limits) -> None:
        self._core = core
        self._stats = stats
        self._limits = limits
        self._containers: dict[str, OfContainer] = {}
        self._groups: dict[str, Watched] = {}
        self._kernel = KernelLog(self.on_kill)

    def open(self) -> None:
        """Begin."""
        self._kernel.open()
        self._stats.listen(self.look)
        self._core.spawn(self._run(), "alarms")

    def close(self) -> None:
        """Stop reading the kernel's log."""
        self._kernel.close()

    async def _run(self) -> None:
        """The agent asks as often: its passes count, so that there is one for both."""
        while True:
            await asyncio.sleep(max(0.1, self._stats.last_at + PASS_S - time.monotonic()))
            due = time.monotonic() - self._stats.last_at >= PASS_S
            if due and any(c.state.is_live for c in self._core.registry):
                try:
                    await self._stats.sample_all()
                except (OSError, RuntimeFault) as error:
                    log.warning("limits were not looked at: %s", error)
                    await asyncio.sleep(PASS_S)
            elif due:
                await asyncio.sleep(PASS_S)

    def look(self, readings: Mapping[str, Reading], groups: Mapping[str, GroupReading]) -> None:
        """One pass."""
        for gone in self._containers.keys() - readings.keys():
            del self._containers[gone]
        for gone in self._groups.keys() - groups.keys():
            del self._groups[gone]
        live = [(c, readings[c.id]) for c in self._core.registry if c.id in readings]
        for container, reading in live:
            self._look_at(container, reading, groups)
        for path, group in groups.items():
            watched = self._groups.setdefault(path, Watched())
            to_all = watched.judge(Moment.of_group(group), self._limits.group(path), level_of(path))
            below = [c for c, _ in live if path in parents(c.record.host.cgroup_parent)] if watched.episodes else []
            for episode in watched.hit_now():
                for container in self._concerned(below, episode.hit.limit):
                    if episode.hit in to_all or container.id not in episode.whom:
                        self.emit(container, episode.hit)
                        episode.whom.add(container.id)

    def _look_at(self, container: Container, reading: Reading, groups: Mapping[str, GroupReading]) -> None:
        kept, now = self._of(container), Moment.of(reading, self._fullest(container, reading.group.marks, groups))
        before = kept.watched.moments[-1] if kept.watched.moments else now
        hits = kept.watched.judge(now, container.record.host.resources)
        if now.oom_kills > before.oom_kills:
            self._counted_kill(container, kept.kills, reading)
        self._tell_kills(container, kept.kills)
        for hit in hits:
            if hit.limit == "memory" and time.monotonic() - kept.kills.told_at < AFTER_KILL_S:
                continue
            self.emit(container, hit)

    def _of(self, container: Container) -> OfContainer:
        started_ns = container.life.started_ns
        kept = self._containers.get(container.id)
        if kept is None or kept.started_ns != started_ns:
            kept = self._containers[container.id] = OfContainer(started_ns)
            if started_ns > self._core.started_ns:
                kept.watched.moments.append(Moment(ns=started_ns, marks=Marks()))  # its group was new and empty
        return kept

    def _fullest(self, container: Container, own: Marks, groups: Mapping[str, GroupReading]) -> Processes:
        paths = [path for path in reversed(parents(container.record.host.cgroup_parent)) if path in groups]
        return fullest([("instance", own), *((level_of(path), groups[path].marks) for path in paths)])

    def _concerned(self, below: Iterable[Container], limit: str) -> list[Container]:
        """Who is told of a group's limit: of each app the instance that used most, if the app had a part in it.

        Who begins to have a part in it later is told then.
        """
        shares = [(self._share(container, limit), container) for container in below]
        total = sum(share for share, _ in shares)
        most: dict[str, tuple[float, Container]] = {}
        for share, container in shares:
            app = container.record.host.cgroup_parent
            if share > 0 and share >= total * CONCERNED and share >= most.get(app, (0.0, container))[0]:
                most[app] = (share, container)
        return [container for _, container in most.values()]

    def _share(self, container: Container, limit: str) -> float:
        """What a container used since the look before, in the unit of the limit; memory and processes as they are.

        What its start took is not its program's: at the first look it has used nothing.
        """
        moments = self._of(container).watched.moments
        now, then = moments[-1], moments[max(0, len(moments) - 2)]
        if then.ns == container.life.started_ns:
            then = now
        if limit == "cpu":
            return now.marks.cpu_ns - then.marks.cpu_ns
        if limit == "disk_io":
            return sum(map(sum, now.devices.values())) - sum(map(sum, then.devices.values()))
        return now.marks.pids if limit == "pids" else now.memory_bytes

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
        if hit.since_ns:
            figures["since"] = f"{hit.since_ns / 1e9:.3f}"
        self._core.events.emit("moorage", "limit", container.id, {**container.attributes, **figures})

    # Kills for want of memory

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
        whole = bool(victim.init and victim.init.pid == kill.pid) or self._core.cgroups.kills_whole(victim.cgroup)
        kills = self._of(victim).kills
        kills.untold += 1
        text = sentences.oom_sentence(time.time_ns(), kill.process, allowed, level, whole=whole, kills=kills.untold)
        victim.oom_note = text[0].upper() + text[1:]
        kills.last = Hit(
            limit="memory", level=level, used=allowed, allowed=allowed, process=kill.process, sentence=text
        )
        self._tell_kills(victim, kills, at_once=whole)

    def _counted_kill(self, container: Container, kills: Kills, reading: Reading) -> None:
        """A kill that the counters tell of; the kernel's log, where it can be read, did so already."""
        if kills.untold or time.monotonic() - kills.told_at < KILLS_S:
            return
        allowed = reading.group.memory_limit_bytes
        text = sentences.oom_sentence(reading.ns, "", allowed, "instance")
        kills.untold, kills.last = 1, Hit(limit="memory", used=allowed, allowed=allowed, sentence=text)

    def _tell_kills(self, container: Container, kills: Kills, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if kills.last and kills.untold and (at_once or now - kills.told_at >= KILLS_S):
            kills.told_at, kills.untold = now, 0
            self._of(container).watched.episodes.pop("memory", None)  # a kill says more, and is a row of its own
            self.emit(container, kills.last)


def level_of(path: str) -> Level:
    """Whose limit a group below the root is: team, app or instance."""
    depth = path.count("/") if path else len(LEVELS)
    return LEVELS[depth] if depth < len(LEVELS) and not path.startswith("default/") else "instance"
