"""What goes on while the client listens: attach, wait, logs, stats."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiohttp import web

from runtime.engine.api.call import Call, Handler, answer, nothing, stream
from runtime.engine.api.hijack import MULTIPLEXED, RAW, Hijacked, RawStream, hijack, relay
from runtime.engine.api.streaming import streams
from runtime.engine.container import Attaching, Container, Ended
from runtime.engine.containers import attach_path
from runtime.engine.detachkeys import Keys, parse_keys
from runtime.engine.errors import Conflict, Invalid
from runtime.engine.logs import LogQuery, Reader
from runtime.engine.state import State
from runtime.engine.units import parse_time_ns
from runtime.oci.client import attach_stream


def _named(call: Call) -> Container:
    return call.engine.core.registry.find(call.names["id"])


# attach


@streams
async def attach(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/attach: the container's streams, framed; before a start it waits for one and misses nothing."""
    container, keys = _named(call), parse_keys(call.text("detachKeys"))
    if container.state is State.PAUSED:
        raise Conflict(f"Container {container.id} is paused. Unpause the container before attach.")
    waiting = None
    if call.flag("stream") and not container.state.is_live:
        if container.state in (State.REMOVING, State.DEAD):
            raise Conflict(f"Container {container.id} is {container.state}.")
        waiting = Attaching()
        container.attaching.append(waiting)
    try:
        raw = container.record.config.tty or call.version < (1, 42)
        client = hijack(call.request, RAW if raw else MULTIPLEXED)
        if call.flag("logs"):
            await _past(call, container, client)
        if call.flag("stream"):
            await _live(call, container, client, waiting, Keys(keys) if container.record.config.tty else None)
        client.finish()
    finally:
        if waiting:
            waiting.connected.set()
            if waiting in container.attaching:
                container.attaching.remove(waiting)
    return Hijacked()


async def _past(call: Call, container: Container, client: RawStream) -> None:
    query = LogQuery(stdout=call.flag("stdout"), stderr=call.flag("stderr"), raw=container.record.config.tty)
    with Reader(container.log, query) as reader:
        for batch in reader.batches():
            await client.write(batch)


async def _live(
    call: Call, container: Container, client: RawStream, waiting: Attaching | None, keys: Keys | None
) -> None:
    if waiting and not await waiting.listening:
        return
    config = container.record.config
    stdin = call.flag("stdin") and config.open_stdin
    path = attach_path(call.engine.core, container.id)
    try:
        reader, writer = await attach_stream(
            path, stdin=stdin, stdout=call.flag("stdout"), stderr=call.flag("stderr"), raw=config.tty
        )
    except OSError:
        return  # it ended between our look and the connect
    if waiting:
        waiting.connected.set()
    if await relay(client, reader, writer, stdin=stdin, keys=keys):
        call.engine.core.emit(container, "detach")


# wait


@streams
async def wait(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/wait: the head at once, the status code when the condition holds."""
    container = _named(call)
    condition = call.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise Invalid(f"invalid condition: {condition[:32]!r}.", "Use not-running, next-exit or removed.")
    signal = container.removals if condition == "removed" else container.exits
    future = signal.subscribe()
    if condition == "not-running" and not container.state.is_live and container.state is not State.RESTARTING:
        future.set_result(Ended(container.life.exit_code))
    response = await stream(call, "application/json")
    ended = await future
    body = {"StatusCode": ended.code, "Error": {"Message": ended.error} if ended.error else None}
    await response.write(json.dumps(body).encode() + b"\n")
    return response


# logs


def _query(call: Call, container: Container) -> LogQuery:
    tail = call.text("tail", "all")
    if tail not in ("all", "") and not (tail.isdigit() or tail.startswith("-")):
        raise Invalid(f"tail {tail[:32]!r} is neither a number nor all.")
    query = LogQuery(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since_ns=parse_time_ns(call.text("since")) if call.text("since") else 0,
        until_ns=parse_time_ns(call.text("until")) if call.text("until") else 0,
        tail=int(tail) if tail.isdigit() else None,
        timestamps=call.flag("timestamps"),
        follow=call.flag("follow"),
        raw=container.record.config.tty,
    )
    if not (query.stdout or query.stderr):
        raise Invalid("Bad parameters: you must choose at least one stream.")
    return query


@streams
async def logs(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/logs."""
    container = _named(call)
    query = _query(call, container)
    response = await stream(call, MULTIPLEXED if call.version >= (1, 42) and not query.raw else RAW)
    if not query.follow:
        with Reader(container.log, query) as reader:
            for batch in reader.batches():
                await response.write(batch)
        return response
    await _follow(call, container, query, response)
    return response


async def _follow(call: Call, container: Container, query: LogQuery, response: web.StreamResponse) -> None:
    """Sleep on the folder's changes and on the container's end; after the end, what is written is read once more."""
    container.log.mkdir(exist_ok=True, mode=0o700)
    ended = container.exits.subscribe()
    removed = container.removals.subscribe()
    with call.engine.core.watcher.changes(container.log) as changed, Reader(container.log, query) as reader:
        while True:
            over = not container.state.is_live and container.state is not State.RESTARTING
            changed.clear()
            for batch in reader.batches():
                await response.write(batch)
            if over or reader.past_end:
                return
            woken = asyncio.ensure_future(changed.wait())
            waits: set[asyncio.Future[Any]] = {woken, ended, removed}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
            if ended.done() and container.state in (State.RUNNING, State.RESTARTING):
                ended = container.exits.subscribe()


# stats


@streams
async def stats(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/stats: one sample a second, or one that knows the second before it."""
    container, source = _named(call), call.engine.stats
    if not call.flag("stream", default=True):
        if not container.state.is_live:
            return answer(source.blank(container))
        first = None if call.flag("one-shot") else await source.sample(container)
        if first:
            await asyncio.sleep(1)
        return answer(await source.body(container, first))
    response = await stream(call, "application/json")
    before = None
    loop = asyncio.get_running_loop()
    due = loop.time()
    while container.state is not State.REMOVING:
        if container.state.is_live:
            body, before = await source.next(container, before)
        else:
            body, before = source.blank(container), None
        await response.write(json.dumps(body).encode() + b"\n")
        due += 1
        await asyncio.sleep(max(0.0, due - loop.time()))
    return response


async def resize(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/resize; without a terminal nothing happens, as in Docker."""
    container, (height, width) = _named(call), call.size()
    launched = container.launched
    if launched is None or not container.state.is_live:
        raise Conflict(f"container {container.id} is not running")
    with suppress(OSError):  # it has ended meanwhile
        await launched.resize(height, width)
    return nothing(200)


ROUTES: dict[str, Handler] = {
    "POST /containers/{id}/attach": attach,
    "POST /containers/{id}/wait": wait,
    "GET /containers/{id}/logs": logs,
    "GET /containers/{id}/stats": stats,
    "POST /containers/{id}/resize": resize,
}
