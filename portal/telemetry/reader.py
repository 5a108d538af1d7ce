"""One blocking read for all viewers of a web process: the streams of every watched instance in a single XREAD."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

BLOCK_MS = 15_000
PAUSE_S = 0.02  # between two reads: what arrives meanwhile comes in one reply, whatever the number of streams
RETRY_S = 0.2
ENTRIES_PER_READ = 200
WAKE_KEPT_S = 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    key: str
    id: str
    fields: dict[bytes, bytes]


type Sink = Callable[[list[Entry]], None]


def order(entry_id: str) -> tuple[int, int]:
    """What stream ids sort by."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)


class StreamReader:
    """Reads the union of what sinks watch and hands each its entries, in the order of a stream.

    A changed set must interrupt the blocking read. A stream of the reader's own is part of it for that: an entry
    there cannot be missed, as CLIENT UNBLOCK could, which is lost when it arrives before the read it should end.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._positions: dict[str, str] = {}
        self._sinks: dict[str, list[Sink]] = {}
        self._wake_key = f"wake:{uuid.uuid4().hex}"
        self._wake_seen = "0-0"
        self._task: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        """How many streams are read now."""
        return len(self._positions)

    async def watch(self, keys: Iterable[str], sink: Sink, *, from_start: bool = False) -> None:
        """Hand entries younger than now to `sink`; what is older is the caller's to read, after this returned.

        With `from_start` the streams' older entries are handed out too.
        """
        wanted = list(keys)
        new = [key for key in wanted if key not in self._positions]
        if from_start:
            self._positions |= dict.fromkeys(new, "0-0")
        elif new:
            await self._start_at_newest(new)
        for key in wanted:
            sinks = self._sinks.setdefault(key, [])
            if sink not in sinks:
                sinks.append(sink)
        if new:
            await self._wake()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="stream reader")

    async def _start_at_newest(self, keys: list[str]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.xrevrange(key, count=1)
        for key, newest in zip(keys, await pipe.execute(), strict=True):
            self._positions.setdefault(key, newest[0][0].decode() if newest else "0-0")

    def forget(self, keys: Iterable[str], sink: Sink) -> None:
        """Stop handing these streams to `sink`; a stream without one is read no more."""
        for key in keys:
            sinks = self._sinks.get(key, [])
            if sink in sinks:
                sinks.remove(sink)
            if not sinks:
                self._sinks.pop(key, None)
                self._positions.pop(key, None)

    async def close(self) -> None:
        """End the task; entries that were not handed out stay in their streams."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _wake(self) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.xadd(self._wake_key, {"w": b""}, maxlen=1, approximate=False)
        pipe.expire(self._wake_key, WAKE_KEPT_S)
        await pipe.execute()

    async def _run(self) -> None:
        while self._positions:
            try:
                reply = await self._redis.xread(
                    dict(self._positions) | {self._wake_key: self._wake_seen},  # type: ignore[arg-type]  # of str keys
                    count=ENTRIES_PER_READ,
                    block=BLOCK_MS,
                )
            except (RedisError, OSError) as error:
                if not isinstance(error, RedisConnectionError | OSError | TimeoutError):
                    raise
                await asyncio.sleep(RETRY_S)  # Redis is being restarted; ids are times, so reading goes on where it was
                continue
            if reply:
                self._hand_out(reply)
                await asyncio.sleep(PAUSE_S)

    def _hand_out(self, reply: list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]) -> None:
        rounds: dict[Sink, list[Entry]] = {}
        for raw_key, rows in reply:
            key, last = raw_key.decode(), rows[-1][0].decode()
            if key == self._wake_key:
                self._wake_seen = last
                continue
            if key not in self._positions:
                continue
            if order(last) > order(self._positions[key]):
                self._positions[key] = last
            entries = [Entry(key, entry_id.decode(), fields) for entry_id, fields in rows]
            for sink in self._sinks.get(key, ()):
                rounds.setdefault(sink, []).extend(entries)
        for sink, entries in rounds.items():
            sink(entries)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, StreamReader] = WeakKeyDictionary()


def reader(redis: Redis) -> StreamReader:
    """The reader of this event loop; a web process has one loop, so one reader. `redis` is used by the first caller."""
    return _readers.setdefault(asyncio.get_running_loop(), StreamReader(redis))
