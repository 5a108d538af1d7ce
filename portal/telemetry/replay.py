"""What is already in the streams: the last lines, or everything after a cursor, merged across instances."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from redis.asyncio import Redis

from portal.telemetry.lines import Cursor, Line, LineId, at_s, merged, unpack_batch
from worker.protocol import log_stream

PAGE_ENTRIES = 100


async def tail(redis: Redis, instances: Iterable[str], count: int) -> list[Line]:
    """The last `count` lines of all instances together, oldest first."""
    found: dict[str, list[Line]] = {instance: [] for instance in instances}
    before: dict[str, str] = dict.fromkeys(found, "+")
    while before:
        pipe = redis.pipeline(transaction=False)
        for instance, end in before.items():
            pipe.xrevrange(log_stream(instance), max=end, count=PAGE_ENTRIES)
        for instance, rows in zip(list(before), await pipe.execute(), strict=True):
            for _, fields in rows:
                found[instance][:0] = unpack_batch(instance, fields[b"l"])
            if len(rows) < PAGE_ENTRIES or len(found[instance]) >= count:
                del before[instance]
            else:
                before[instance] = f"({rows[-1][0].decode()}"
    return Cursor().take(merged(found))[-count:]  # an agent that was killed may send a part of a batch again


@dataclass(slots=True)
class _Source:
    """One stream being replayed: lines read but not given out, and where to read on."""

    instance: str
    start: str
    lines: list[Line] = field(default_factory=list)
    ended: bool = False

    def fill(self, rows: list[tuple[bytes, dict[bytes, bytes]]], cursor: Cursor) -> None:
        self.ended = len(rows) < PAGE_ENTRIES
        for entry_id, fields in rows:
            self.start = f"({entry_id.decode()}"
            self.lines += cursor.take(unpack_batch(self.instance, fields[b"l"]))

    def give(self, bound: LineId | None) -> list[Line]:
        if bound is None:
            given, self.lines = self.lines, []
            return given
        given = [line for line in self.lines if line.order <= bound]
        self.lines = self.lines[len(given) :]
        return given


async def replay(redis: Redis, cursor: Cursor, instances: Iterable[str]) -> AsyncGenerator[list[Line]]:
    """Every line after `cursor` that the streams hold, in the order of ids, page by page; moves the cursor on.

    A page is given out up to the oldest of the streams' last read lines: what is older can come no more.
    """
    sources = [_Source(name, "({}-{}".format(*cursor.of(name))) for name in instances]
    while sources:
        empty = [source for source in sources if not source.lines]
        pipe = redis.pipeline(transaction=False)
        for source in empty:
            pipe.xrange(log_stream(source.instance), min=source.start, count=PAGE_ENTRIES)
        for source, rows in zip(empty, await pipe.execute(), strict=True):
            source.fill(rows, cursor)
        bounds = [source.lines[-1].order for source in sources if source.lines and not source.ended]
        lines = merged({source.instance: source.give(min(bounds, default=None)) for source in sources})
        sources = [source for source in sources if source.lines or not source.ended]
        if lines:
            yield lines


async def begins_at(redis: Redis, instances: Iterable[str]) -> float | None:
    """Seconds since 1970 of the oldest line that trimming left of these streams; None when nothing was trimmed."""
    names = list(instances)
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.xrange(log_stream(name), count=1)
        pipe.xinfo_stream(log_stream(name))
    replies = await pipe.execute(raise_on_error=False)
    oldest = []
    for name, rows, info in zip(names, replies[::2], replies[1::2], strict=True):
        if isinstance(rows, list) and rows and isinstance(info, dict) and info.get("entries-added", 0) > info["length"]:
            oldest.append(at_s(unpack_batch(name, rows[0][1][b"l"])[0].id))
    return max(oldest, default=None)
