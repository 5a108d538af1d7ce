"""Health from outside, against real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from worker.health import Watch, probe, wait_healthy
from worker.protocol import HealthCheck

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HTTP = HealthCheck(kind="http", path="/health", host_header="hello.localhost", timeout_s=0.3, deadline_s=0.5)


@asynccontextmanager
async def listening(answer: bytes | None, port: int = 0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says `answer` (None: nothing, ever) and keeps what it was asked."""
    asked: list[bytes] = []
    hold = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4096))
        if answer is None:
            await hold.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        hold.set()
        server.close()


@pytest.mark.parametrize(("answer", "trouble"), [
    (b"HTTP/1.1 200 OK\r\n\r\n", ""), (b"HTTP/1.0 302 Found\r\n\r\n", ""), (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404 from /health"),
    (b"HTTP/1.1 500 Oh\r\n\r\n", "status 500 from /health"), (b"SSH-2.0-x\r\n", "no HTTP answer"), (b"", "connection closed"),
    (b"x" * 100_000, "no HTTP answer"),
])  # fmt: skip
async def test_an_http_check_goes_by_the_status(answer: bytes, trouble: str) -> None:
    async with listening(answer) as (port, asked):
        assert await probe("127.0.0.1", port, HTTP) == trouble
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: hello.localhost\r\n")


async def test_a_server_that_never_answers_is_given_up_after_the_timeout() -> None:
    async with listening(None) as (port, _):
        assert await probe("127.0.0.1", port, HTTP) == "no answer within 0.3 s"
        assert await probe("127.0.0.1", port, HealthCheck()) == ""


async def test_a_closed_port_is_refused_and_no_check_is_always_healthy() -> None:
    assert await probe("127.0.0.1", 1, HealthCheck()) == "connection refused"
    assert await probe("127.0.0.1", 1, HealthCheck(kind="none")) == ""


async def test_an_app_is_seen_within_a_moment_of_its_listening() -> None:
    async with listening(b"") as (port, _):
        pass
    waiting = asyncio.create_task(wait_healthy("127.0.0.1", port, HealthCheck(), asyncio.Event()))
    await asyncio.sleep(0.3)
    async with listening(b"", port):
        begun = time.monotonic()
        assert await waiting == ""
        assert time.monotonic() - begun < 0.25


async def test_an_exit_ends_the_wait_at_once() -> None:
    ended = asyncio.Event()
    waiting = asyncio.create_task(wait_healthy("127.0.0.1", 1, HealthCheck(deadline_s=60), ended))
    await asyncio.sleep(0.05)
    ended.set()
    assert await asyncio.wait_for(waiting, 1) == "ended"


async def test_the_deadline_tells_the_last_trouble() -> None:
    assert await wait_healthy("127.0.0.1", 1, HealthCheck(deadline_s=0.2), asyncio.Event()) == "connection refused"


async def test_a_live_instance_is_called_unhealthy_after_failures_in_a_row_and_healthy_after_one_answer() -> None:
    told: list[tuple[str, str]] = []
    heard = asyncio.Event()

    def tell(name: str, trouble: str) -> None:
        told.append((name, trouble))
        heard.set()

    async with listening(b"") as (port, _):
        pass
    check = HealthCheck(interval_s=0.02, unhealthy_after=3)
    watch = Watch(tell)
    watch.follow({"web-1": ("127.0.0.1", port, check)})
    await asyncio.wait_for(heard.wait(), 5)
    assert told[0] == ("web-1", f"3 checks in a row failed: connection refused on port {port}.")
    async with listening(b"", port):
        told.clear()
        while ("web-1", "") not in told:
            heard.clear()
            await asyncio.wait_for(heard.wait(), 5)
    watch.follow({})
    told.clear()
    await asyncio.sleep(0.1)
    assert told == []
