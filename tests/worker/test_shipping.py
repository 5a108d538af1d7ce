"""Log lines from the record to a real Valkey: no gap, no double, whatever dies in between."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
from redis import Redis

from tests.worker.redis_server import OwnValkey, own_valkey
from tests.worker.test_logs import Record
from worker.live import Live
from worker.logs import Line, LineId
from worker.protocol import log_stream
from worker.shipping import REFILL_LINES, Shipper


@pytest.fixture
def server() -> Iterator[OwnValkey]:
    with tempfile.TemporaryDirectory(prefix="mw-", dir="/tmp") as folder, own_valkey(Path(folder)) as found:
        yield found


@pytest.fixture
def record(tmp_path: Path) -> Record:
    found = Record(tmp_path / "log")
    (found.folder / "current").touch()
    return found


@asynccontextmanager
async def shipping(server: OwnValkey, record: Record) -> AsyncIterator[Live]:
    """The shipping part of an agent; cancelled at the end as hard as a kill."""
    live = Live(server.url)
    shipper = Shipper(live)
    shipper.follow("web-1", record.folder)
    task = asyncio.create_task(shipper.run())
    try:
        yield live
    finally:
        task.cancel()
        await asyncio.wait((task,))
        await live.close()


def shipped(server: OwnValkey, instance: str = "web-1") -> list[str]:
    """Ids of all lines of the stream, in order; each entry's own id is that of its last line."""
    found: list[str] = []
    for entry, fields in Redis.from_url(server.url).xrange(log_stream(instance)):
        lines = [line[0] for line in msgpack.unpackb(fields[b"l"])]
        assert lines[-1] == entry.decode()
        found += lines
    return found


async def until(server: OwnValkey, ids: list[LineId], timeout_s: float = 10) -> list[str]:
    """Wait for the last of them to arrive; all that is there then."""
    deadline = time.monotonic() + timeout_s
    while not (found := shipped(server)) or found[-1] != str(ids[-1]):
        assert time.monotonic() < deadline, f"{len(found)} lines, the last is {found[-1:]}"
        await asyncio.sleep(0.01)
    return found


async def test_lines_arrive_within_a_moment_and_in_order(server: OwnValkey, record: Record) -> None:
    async with shipping(server, record):
        record.write(time.time_ns(), "first")
        await until(server, record.ids)
        begun = time.monotonic()
        record.write(time.time_ns(), "a", "b", tag="e")
        assert await until(server, record.ids) == [str(i) for i in record.ids]
        assert time.monotonic() - begun < 0.5


async def test_an_agent_that_is_killed_again_and_again_leaves_no_gap_and_no_double(
    server: OwnValkey, record: Record
) -> None:
    for life in range(8):
        async with shipping(server, record):
            for n in range(60):
                record.write(time.time_ns() // 10**6 * 10**6, *(f"{life}.{n}.{k}" for k in range(1 + n % 7)))
                if n % 23 == 22:
                    record.rotate()
                if n % 9 == 0:
                    await asyncio.sleep(0.005)
        record.write(time.time_ns(), "while nobody watched")
    async with shipping(server, record):
        assert await until(server, record.ids) == [str(i) for i in record.ids]


async def test_a_line_sent_twice_is_refused_as_a_double(server: OwnValkey) -> None:
    live = Live(server.url)
    lines = [Line(LineId(10**18 + n, 0), "o", str(n)) for n in range(5)]
    await live.add_lines("web-1", lines)
    await live.add_lines("web-1", lines)
    assert len(shipped(server)) == 5
    assert await live.last_line("web-1") == lines[-1].id
    await live.close()


async def test_a_valkey_that_comes_back_empty_is_filled_from_the_record(server: OwnValkey, record: Record) -> None:
    async with shipping(server, record):
        record.write(time.time_ns(), *(f"line {n}" for n in range(50)))
        await until(server, record.ids)
        server.kill()
        record.write(time.time_ns(), "into the record alone")
        await asyncio.sleep(0.1)
        server.start()
        record.write(time.time_ns(), "after")
        assert await until(server, record.ids) == [str(i) for i in record.ids]


async def test_a_valkey_that_was_away_for_long_misses_no_line_that_came_meanwhile(
    server: OwnValkey, record: Record
) -> None:
    async with shipping(server, record):
        record.write(time.time_ns(), "before")
        await until(server, record.ids)
        server.kill()
        for _ in range(3 * REFILL_LINES):
            record.write(time.time_ns(), "meanwhile")
        server.start()
        assert await until(server, record.ids) == [str(i) for i in record.ids]


async def test_a_long_record_fills_an_empty_stream_with_its_last_lines_only(server: OwnValkey, record: Record) -> None:
    for n in range(3 * REFILL_LINES):
        record.write(10**18 + n, "x")
    async with shipping(server, record):
        assert await until(server, record.ids) == [str(i) for i in record.ids[-REFILL_LINES:]]


async def test_a_flood_is_thinned_in_the_live_view_and_says_so(server: OwnValkey, record: Record) -> None:
    record.write(time.time_ns(), "before")
    async with shipping(server, record) as live:
        await until(server, record.ids)
        now = time.time_ns()
        with (record.folder / "current").open("a") as file:
            file.writelines(f"{now + n} o {'x' * 200}\n" for n in range(60_000))
        record.ids.append(LineId(now + 59_999, 0))
        found = await until(server, record.ids)
        assert len(found) < 30_000
        assert found == sorted(set(found), key=lambda i: tuple(map(int, i.split("-"))))
        entries = Redis.from_url(server.url).xrange(log_stream("web-1"))
        notes = [t for _, f in entries for _, tag, t in msgpack.unpackb(f[b"l"]) if tag == "m"]
        assert any("in the record" in note for note in notes)
        assert live


async def test_over_its_budget_the_noisiest_app_loses_its_oldest_lines(server: OwnValkey) -> None:
    live = Live(server.url)
    quiet = [Line(LineId(10**18, n), "o", "quiet") for n in range(10)]
    noisy = [Line(LineId(10**18 + n, 0), "o", "x" * 500) for n in range(10_000)]
    await live.add_lines("quiet", quiet)
    await live.add_lines("noisy", noisy)
    await live.trim(budget=2 << 20)
    memory = Redis.from_url(server.url)
    assert sum(memory.memory_usage(log_stream(n), samples=0) for n in ("quiet", "noisy")) <= 2 << 20
    assert shipped(server, "quiet") == [str(line.id) for line in quiet]
    left = shipped(server, "noisy")
    assert left == [str(line.id) for line in noisy[-len(left) :]]
    assert left
    await live.close()
