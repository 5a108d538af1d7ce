"""Writes log and metric streams as the agent does (docs/interfaces.md)."""

from __future__ import annotations

from typing import Any

import msgpack
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from portal.telemetry.lines import Line
from worker.protocol import MetricSample, log_stream, metric_stream

T0_MS = 1_764_000_000_000


def lines(instance: str, start: int, count: int, *, text: str = "line", step_ms: int = 10) -> list[Line]:
    """`count` lines from number `start` on, `step_ms` apart, numbered in their text."""
    return [Line(f"{T0_MS + n * step_ms}-0", instance, "o", f"{text} {n}") for n in range(start, start + count)]


def _entry(batch: list[Line]) -> dict[str, Any]:
    rows = [[line.id, line.tag, line.text] for line in batch]
    return {"name": log_stream(batch[0].instance), "fields": {"l": msgpack.packb(rows)}, "id": batch[-1].id}


def put(redis: SyncRedis, batch: list[Line], *, per_entry: int = 50) -> None:
    """Lines of one instance in entries of so many, each under the id of its last line."""
    pipe = redis.pipeline(transaction=False)
    for start in range(0, len(batch), per_entry):
        pipe.xadd(**_entry(batch[start : start + per_entry]))
    pipe.execute()


async def write(redis: Redis, batch: list[Line]) -> None:
    """One entry: the lines of one instance, under the id of the last."""
    await redis.xadd(**_entry(batch))


async def write_all(redis: Redis, batch: list[Line], *, per_entry: int = 50) -> None:
    """Lines in entries of so many."""
    for start in range(0, len(batch), per_entry):
        await write(redis, batch[start : start + per_entry])


def sample(at: float, **counters: int) -> MetricSample:
    """A sample with zeros for whatever is not given."""
    names = (
        "cpu_ns throttled_ns memory_bytes memory_limit_bytes net_in_total net_out_total disk_read_total"
        " disk_write_total disk_used_bytes pids cpu_limit_millicores"
    )
    return MetricSample(at=at, **(dict.fromkeys(names.split(), 0) | counters))


def put_sample(redis: SyncRedis, instance: str, one: MetricSample) -> None:
    """One metric entry, whose id is its time."""
    redis.xadd(metric_stream(instance), {"s": one.pack()}, id=f"{int(one.at * 1000)}-*", maxlen=1800)
