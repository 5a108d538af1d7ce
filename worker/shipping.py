"""Ships log lines from the record to Redis: woken by inotify, at most 50 ms a batch, taken up again where the stream ends."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch
from redis.exceptions import RedisError

from worker.live import Live
from worker.logs import Follower, Line, LineId

log = logging.getLogger(__name__)

GATHER_S = 0.02
REFILL_LINES = 1000  # of the record, when the stream has nothing
UNSEEN_NS = 1_000_000_000  # what a stream that was lost may have held and no viewer been sent
THIN_BYTES = 8 << 20  # further behind than this, the live view leaves lines out; the record does not
RETRY_S = 0.5
CHANGES = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO


@dataclass(eq=False, slots=True)
class Source:
    """One instance's log."""

    instance: str
    folder: Path
    follower: Follower
    watch: Watch
    placed: bool = False  # whether the follower stands where the stream ends
    last: LineId | None = None  # of the stream
    shipped: LineId | None = None  # by us, also to a stream that has been lost since


class Shipper:
    """All logs of a host."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._inotify = Inotify()
        self._sources: dict[str, Source] = {}
        self._by_folder: dict[Path, Source] = {}
        self._ready: dict[str, Source] = {}
        self._wake = asyncio.Event()
        self._away = False

    def follow(self, instance: str, folder: Path) -> None:
        """Ship this log from now on; one that is followed already, or has no folder yet, is left alone."""
        if instance in self._sources:
            if self._sources[instance].folder == folder:
                return
            self.forget(instance)
        try:
            watch = self._inotify.add_watch(folder, CHANGES)
        except OSError as error:
            log.debug("%s has no log yet: %s", instance, error)
            return
        source = Source(instance, folder, Follower(folder), watch)
        self._sources[instance] = self._by_folder[folder] = source
        self._rouse(source)

    def forget(self, instance: str) -> None:
        """Its container is gone."""
        source = self._sources.pop(instance, None)
        if source:
            source.follower.close()
            self._by_folder.pop(source.folder, None)
            self._ready.pop(instance, None)
            try:
                self._inotify.rm_watch(source.watch)
            except (OSError, ValueError, KeyError):
                log.debug("the watch on %s went with its folder", source.folder)

    @property
    def instances(self) -> frozenset[str]:
        """Those followed."""
        return frozenset(self._sources)

    async def run(self) -> None:
        """Listen and ship for ever."""
        await asyncio.gather(self._listen(), self._ship())

    def _rouse(self, source: Source) -> None:
        self._ready[source.instance] = source
        self._wake.set()

    async def _listen(self) -> None:
        with self._inotify as events:
            async for event in events:
                self._heard(event)

    def _heard(self, event: Event) -> None:
        if event.mask & Mask.Q_OVERFLOW:
            for source in self._sources.values():
                self._rouse(source)
        elif event.watch and (found := self._by_folder.get(Path(event.watch.path))):
            self._rouse(found)

    async def _ship(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready, self._ready = self._ready, {}
            try:
                for source in ready.values():
                    await self.ship(source)
                if ready:
                    self._say(None)
            except RedisError as error:
                self._say(error)
                await self._start_over()
            await asyncio.sleep(GATHER_S)

    async def ship(self, source: Source) -> None:
        """Ship what is there, up to one block; more makes it ready again. Raises RedisError."""
        if self._sources.get(source.instance) is not source:
            return
        if not source.placed:
            await self._place(source)
        behind = source.follower.behind()
        lines: list[Line] = []
        if behind > THIN_BYTES:
            source.follower.tail(REFILL_LINES)
            lines = self._left_out(source, behind)
        lines += [line for line in source.follower.read() if source.last is None or line.id > source.last]
        if lines:
            await self._live.add_lines(source.instance, lines, begun=source.last is not None)
            source.last = source.shipped = lines[-1].id
            self._rouse(source)

    async def _place(self, source: Source) -> None:
        source.last = await self._live.last_line(source.instance)
        if source.last is None:
            source.follower.tail(REFILL_LINES, source.shipped.ns - UNSEEN_NS if source.shipped else None)
        else:
            source.follower.after(source.last)
        source.placed = True

    def _say(self, error: RedisError | None) -> None:
        if error and not self._away:
            log.warning("Redis is away, the live view pauses: %s", error)
        elif self._away and not error:
            log.info("Redis answers again, the live view goes on.")
        self._away = bool(error)

    def _left_out(self, source: Source, behind: int) -> list[Line]:
        if source.last is None:
            return []
        note = f"{behind >> 20} MB of lines came faster than the live view shows; they are in the record."
        return [Line(LineId(source.last.ns, source.last.index + 1), "m", note)]

    async def _start_over(self) -> None:
        """Nothing is known of what Redis has: ask it again for every log, as soon as it answers."""
        for source in self._sources.values():
            source.placed = False
            self._rouse(source)
        await asyncio.sleep(RETRY_S)
