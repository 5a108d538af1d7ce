"""An app's log over HTTP: a page of lines, or a stream that goes on until the client leaves or its right ends."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from redis.asyncio import Redis

from portal.config import config
from portal.errors import PortalError
from portal.hosting.models import App
from portal.telemetry import instances
from portal.telemetry.feeds import feeds, following, wanted
from portal.telemetry.lines import ZERO, Cursor, Line, at_s
from portal.telemetry.replay import begins_at, replay, tail
from portal.telemetry.viewer import Viewer
from portal.threads import in_thread

RECHECK_S = 5.0  # whether the right is still there, and whether there are new instances
STREAMS = {"o": "stdout", "O": "stdout", "e": "stderr", "E": "stderr", "m": "platform"}


@dataclass(frozen=True, slots=True)
class Page:
    """Lines, where to go on, and since when the live streams have everything (None: since the beginning)."""

    lines: list[Line]
    next: Cursor
    complete_since: float | None


def page(app: App, cursor: Cursor, limit: int, instance: str) -> Page:
    """The first `limit` lines after the cursor, or the last `limit` without one."""
    names = instances.names(app.pk)
    viewer = Viewer(cursor, instance=instance)
    return async_to_sync(_page)(viewer, wanted(viewer, names), limit)


async def _page(viewer: Viewer, names: list[str], limit: int) -> Page:
    cursor = viewer.cursor
    async with Redis.from_url(config().redis_url) as redis:
        since = await begins_at(redis, names)
        if cursor.floor == ZERO and not cursor.seen:
            lines = await tail(redis, names, limit)
        else:
            start = Cursor(cursor.floor, dict(cursor.seen))
            lines = []
            async with aclosing(replay(redis, start, names)) as pages:
                async for some in pages:
                    lines += some
                    if len(lines) >= limit:
                        break
            lines = lines[:limit]
        cursor.take(lines)
        return Page(lines, cursor, since)


def line_json(line: Line, names: Mapping[str, str]) -> dict[str, Any]:
    """A line as the API has it."""
    return {
        "id": line.id,
        "at": _iso(at_s(line.id)),
        "instance": line.instance,
        "name": names.get(line.instance, line.instance or "moorage"),
        "stream": STREAMS.get(line.tag, line.tag),
        "text": line.text,
    }


def as_ndjson(line: Line, names: Mapping[str, str]) -> str:
    """One JSON document a line."""
    return json.dumps(line_json(line, names), ensure_ascii=False) + "\n"


def as_text(line: Line, names: Mapping[str, str]) -> str:
    """`<time> <name> <text>`, as people read it."""
    return f"{_iso(at_s(line.id))} {names.get(line.instance, line.instance or 'moorage')} {line.text}\n"


def headers(complete_since: float | None) -> dict[str, str]:
    """Say since when the answer can be complete."""
    if complete_since is None:
        return {}
    when = _iso(complete_since)
    return {
        "Moorage-Log-Since": when,
        "Moorage-Log-Note": f"Lines before {when} have left the live stream; they are in the record on the host.",
    }


def _iso(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


type Format = Callable[[Line, Mapping[str, str]], str]


async def stream(app: App, viewer: Viewer, last: int, form: Format, check: Callable[[], App]) -> AsyncGenerator[str]:
    """Follow an app's log: first the last `last` lines, or all after the viewer's cursor. `check` raises when the right ends."""
    source = feeds(config().redis_url)
    names = await in_thread(instances.labels, app.pk)
    if viewer.cursor.floor == ZERO and not viewer.cursor.seen:
        lines = await tail(source.redis, wanted(viewer, names), last)
        if len(lines) == last:
            viewer.cursor.floor = lines[0].order
        viewer.cursor.take(lines)
        yield "".join(form(line, names) for line in lines)
    async with (
        aclosing(following(source, app.pk, viewer, list(names))) as coming,
        aclosing(_or_every(RECHECK_S, coming)) as ticking,
    ):
        async for batch in ticking:
            if batch is not None:
                yield "".join(form(line, names) for line in batch.lines)
                continue
            try:
                await in_thread(check)
            except PortalError:
                return
            names = await in_thread(instances.labels, app.pk)
            await source.logs(app.pk).follow(names)
            if form is as_ndjson:
                yield "\n"  # before a proxy takes silence for death


async def _or_every[T](seconds: float, source: AsyncIterator[T]) -> AsyncGenerator[T | None]:
    """The items of `source`, and None whenever `seconds` have passed, be it busy or silent."""
    clock = asyncio.get_running_loop().time
    due = clock() + seconds
    waiting: asyncio.Future[T] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(source))
            await asyncio.wait({waiting}, timeout=max(0.0, due - clock()))
            if waiting.done():
                item, waiting = waiting.result(), None
                yield item
            if clock() >= due:
                due = clock() + seconds
                yield None
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
