"""An app's live logs and metrics in this process: one feed each, whatever the number of viewers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from weakref import WeakKeyDictionary

from redis.asyncio import Redis

from portal.telemetry.lines import merged, unpack_batch
from portal.telemetry.points import Point, rate
from portal.telemetry.reader import Entry, StreamReader, reader
from portal.telemetry.replay import replay
from portal.telemetry.viewer import Batch, Viewer, batches
from worker.protocol import MetricSample, log_stream, metric_stream

STREAMS_KEPT = 60
POINTS_KEPT = 150  # of a viewer that does not read: five minutes of one instance


class Feed[V]:
    """The streams of one app's instances, and who looks at them."""

    def __init__(self, source: StreamReader, key: Callable[[str], str]) -> None:
        self._reader = source
        self._key = key
        self._streams: dict[str, str] = {}  # key → instance
        self._started = False
        self._joining = asyncio.Lock()
        self.viewers: set[V] = set()

    async def follow(self, instances: Iterable[str]) -> None:
        """Watch these instances too. One that joins later is read from its first entry, since it is new to everybody.

        Instances that are gone stay watched for a while: their last lines may come after the row is deleted.
        """
        async with self._joining:
            new = {self._key(name): name for name in instances if self._key(name) not in self._streams}
            if not self.viewers or (not new and self._started):
                return
            self._streams |= new
            surplus = list(self._streams)[: max(0, len(self._streams) - STREAMS_KEPT)]
            for key in surplus:
                del self._streams[key]
            self._reader.forget(surplus, self.take)
            await self._reader.watch(new, self.take, from_start=self._started)
            self._started = True
            if not self.viewers:
                self._reader.forget(new, self.take)

    def leave(self, viewer: V) -> bool:
        """Push no more to this one; whether it was the last, with whom the streams are let go."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self._reader.forget(self._streams, self.take)
        return not self.viewers

    def take(self, entries: list[Entry]) -> None:
        """Entries of one read, handed over by the reader."""
        raise NotImplementedError

    def by_instance(self, entries: list[Entry]) -> dict[str, list[Entry]]:
        """The entries of each instance, in order."""
        found: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.key in self._streams:
                found.setdefault(self._streams[entry.key], []).append(entry)
        return found


class LogFeed(Feed[Viewer]):
    """The log of one app: merges its instances' streams and pushes each read's lines, encoded once, to every viewer."""

    def take(self, entries: list[Entry]) -> None:
        """Lines of one read, in the order of their ids."""
        found = {
            name: [line for entry in mine for line in unpack_batch(name, entry.fields[b"l"])]
            for name, mine in self.by_instance(entries).items()
        }
        for batch in batches(merged(found)):
            for viewer in self.viewers:
                viewer.push(batch)


type Points = tuple[list[Point], str]  # with their JSON, encoded once for all viewers


class MetricFeed(Feed["asyncio.Queue[Points]"]):
    """The samples of one app as points; a viewer is a queue that drops the oldest when it is full."""

    def __init__(self, source: StreamReader, key: Callable[[str], str]) -> None:
        super().__init__(source, key)
        self._before: dict[str, MetricSample] = {}

    async def prime(self, redis: Redis, instances: Iterable[str]) -> None:
        """Know the newest samples, so that the next one of each is a point and not only a beginning."""
        unknown = [name for name in instances if name not in self._before]
        pipe = redis.pipeline(transaction=False)
        for name in unknown:
            pipe.xrevrange(self._key(name), count=1)
        for name, newest in zip(unknown, await pipe.execute(), strict=True):
            if newest:
                self._before.setdefault(name, MetricSample.unpack(newest[0][1][b"s"]))

    def join(self) -> asyncio.Queue[Points]:
        """A queue that hears of every point from now on."""
        queue: asyncio.Queue[Points] = asyncio.Queue(POINTS_KEPT)
        self.viewers.add(queue)
        return queue

    def take(self, entries: list[Entry]) -> None:
        """Samples of one read, as points."""
        found = [
            point
            for name, mine in self.by_instance(entries).items()
            for entry in mine
            if (point := self._point(name, MetricSample.unpack(entry.fields[b"s"]))) is not None
        ]
        if not found:
            return
        text = json.dumps([point.to_json() for point in found], separators=(",", ":"))
        for queue in self.viewers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((found, text))

    def _point(self, instance: str, sample: MetricSample) -> Point | None:
        before = self._before.get(instance)
        if before is not None and sample.at <= before.at:
            return None
        self._before[instance] = sample
        return rate(instance, before, sample) if before is not None else None


class Feeds:
    """The feeds of one event loop, by app; a feed lives as long as it has a viewer."""

    def __init__(self, redis: Redis, source: StreamReader | None = None) -> None:
        self.redis = redis
        self.reader = source or reader(redis)
        self._logs: dict[int, LogFeed] = {}
        self._metrics: dict[int, MetricFeed] = {}

    def logs(self, app_id: int) -> LogFeed:
        """The app's log feed, made for its first viewer."""
        return self._logs.setdefault(app_id, LogFeed(self.reader, log_stream))

    def metrics(self, app_id: int) -> MetricFeed:
        """The app's metric feed, made for its first viewer."""
        return self._metrics.setdefault(app_id, MetricFeed(self.reader, metric_stream))

    async def close(self) -> None:
        """End the reader and close the connections; tests do, a web process ends with its loop."""
        await self.reader.close()
        await self.redis.aclose()

    def leave_logs(self, app_id: int, viewer: Viewer) -> None:
        """A viewer of the log goes."""
        if app_id in self._logs and self._logs[app_id].leave(viewer):
            del self._logs[app_id]

    def leave_metrics(self, app_id: int, queue: asyncio.Queue[Points]) -> None:
        """A viewer of the metrics goes."""
        if app_id in self._metrics and self._metrics[app_id].leave(queue):
            del self._metrics[app_id]


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feeds] = WeakKeyDictionary()


def feeds(url: str) -> Feeds:
    """This event loop's feeds; the first call opens the Redis client."""
    loop = asyncio.get_running_loop()
    if loop not in _feeds:
        _feeds[loop] = Feeds(Redis.from_url(url, health_check_interval=30))
    return _feeds[loop]


async def following(source: Feeds, app_id: int, viewer: Viewer, instances: list[str]) -> AsyncGenerator[Batch]:
    """Everything after the viewer's cursor, then everything that comes, without gap or double, for ever."""
    feed = source.logs(app_id)
    feed.viewers.add(viewer)
    try:
        await feed.follow(instances)
        caught_up = False
        while not caught_up:
            viewer.begin_replay()
            async for lines in replay(source.redis, viewer.cursor, wanted(viewer, instances)):
                for batch in batches(lines):
                    yield batch
            caught_up = viewer.end_replay()
        while True:
            yield await viewer.next()
    finally:
        source.leave_logs(app_id, viewer)


def wanted(viewer: Viewer, instances: Iterable[str]) -> list[str]:
    """The instances a viewer looks at: its one, or all."""
    return [name for name in instances if viewer.instance in ("", name)]
