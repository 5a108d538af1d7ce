"""The live side in Redis: one stream for an instance's log, one for its samples. What is here may be lost; the record is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgpack  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from worker.logs import Line, LineId
from worker.protocol import MetricSample, log_stream, metric_stream

BATCH_LINES = 200
SAMPLES_KEPT = 1800  # one hour, one every 2 s
BUDGET_BYTES = 48 << 20  # of all log streams of a host; with the samples they stay under 64 MB
SMALLEST_BYTES = 64 << 10
GONE_KEPT_S = 3600


class StreamLost(RedisError):
    """A stream that we filled is not there: Redis was restarted."""


class Live:
    """Streams of one host's instances. Its methods raise redis.exceptions.RedisError when Redis is away."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        self._bytes: dict[str, int] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def last_line(self, instance: str) -> LineId | None:
        """Id of the last line the stream has; None when it is empty."""
        self._bytes[instance] = int(await self._redis.memory_usage(log_stream(instance)) or 0)
        rows = await self._redis.xrevrange(log_stream(instance), count=1)
        return LineId.parse(rows[0][0].decode()) if rows else None

    async def add_lines(self, instance: str, lines: Sequence[Line], *, begun: bool = False) -> None:
        """Append in order. An entry whose id the stream has reached already is refused by Redis: that is a double, and fine.

        Raises StreamLost when the stream has `begun` and is not there: a Redis that was restarted is connected to anew
        without a word, and what would be added now could not be preceded by what was lost.
        """
        if not lines:
            return
        pipe = self._redis.pipeline(transaction=False)
        for start in range(0, len(lines), BATCH_LINES):
            batch = lines[start : start + BATCH_LINES]
            packed = msgpack.packb([[str(line.id), line.tag, line.text] for line in batch])
            self._bytes[instance] = self._bytes.get(instance, 0) + len(packed) + 100
            pipe.xadd(log_stream(instance), {"l": packed}, id=str(batch[-1].id), nomkstream=begun)
        pipe.persist(log_stream(instance))
        *added, _ = answers = await pipe.execute(raise_on_error=False)
        if None in added:
            raise StreamLost(f"the stream of {instance} has gone")
        for answer in answers:
            if isinstance(answer, Exception) and not (
                isinstance(answer, ResponseError) and "equal or smaller" in str(answer)
            ):
                raise answer

    async def add_samples(self, samples: Mapping[str, MetricSample]) -> None:
        """Append one sample for each instance."""
        pipe = self._redis.pipeline(transaction=False)
        for instance, sample in samples.items():
            pipe.xadd(metric_stream(instance), {"s": sample.pack()}, maxlen=SAMPLES_KEPT, approximate=True)
        await pipe.execute()

    async def trim(self, budget: int = BUDGET_BYTES) -> None:
        """While all log streams together are over budget, drop the older half of the largest: a noisy app pays for itself."""
        while sum(self._bytes.values()) > budget:
            name = max(self._bytes, key=lambda n: self._bytes[n])
            if self._bytes[name] < SMALLEST_BYTES:
                return
            key = log_stream(name)
            count = await self._redis.xlen(key)
            await self._redis.xtrim(key, maxlen=count // 2, approximate=False)
            self._bytes[name] = int(await self._redis.memory_usage(key, samples=0) or 0)

    async def forget(self, instances: Iterable[str]) -> None:
        """The instances are gone: their streams stay for an hour."""
        for instance in instances:
            self._bytes.pop(instance, None)
            await self._redis.expire(log_stream(instance), GONE_KEPT_S)
            await self._redis.expire(metric_stream(instance), GONE_KEPT_S)
