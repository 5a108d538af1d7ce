"""The event stream: past, future, filters, slow followers."""

from __future__ import annotations

import asyncio
import json
import time

from runtime.engine import events as module
from runtime.engine.events import Events
from runtime.engine.filters import Filters


def wanted(**filters: list[str]) -> Filters:
    return Filters.parse(json.dumps(filters), module.KNOWN_FILTERS)


async def test_past_events_come_from_since_until_until() -> None:
    events = Events()
    first = events.emit("container", "create", "a" * 64, {"name": "web"})
    second = events.emit("container", "start", "a" * 64, {"name": "web"})
    found = [e.action async for e in events.follow(wanted(), first.ns + 1, second.ns)]
    assert found == ["start"]


async def test_a_follower_hears_what_happens_and_ends_at_until() -> None:
    events = Events()
    until = time.time_ns() + 300_000_000
    asyncio.get_running_loop().call_later(0.05, events.emit, "network", "create", "n", {"name": "x"})
    found = [e.action async for e in events.follow(wanted(), None, until)]
    assert found == ["create"]
    assert events.followers == 0


async def test_filters_choose_by_type_action_container_and_label() -> None:
    events = Events()
    events.emit("container", "start", "a" * 64, {"name": "web", "tier": "front"})
    events.emit("container", "exec_start: sh", "b" * 64, {"name": "db"})
    events.emit("moorage", "limit", "a" * 64, {"name": "web", "limit": "memory"})
    now = time.time_ns()

    async def names(**filters: list[str]) -> list[str]:
        return [e.action async for e in events.follow(wanted(**filters), 0, now)]

    assert await names(type=["moorage"]) == ["limit"]
    assert await names(event=["exec_start"]) == ["exec_start: sh"]
    assert await names(container=["web"]) == ["start", "limit"]
    assert await names(container=["bbbb"]) == ["exec_start: sh"]
    assert await names(label=["tier=front"]) == ["start"]
    assert await names(network=["web"]) == []


async def test_a_follower_that_does_not_read_is_let_go() -> None:
    events = Events()
    stream = events.follow(wanted(), 0, None)
    events.emit("container", "create", "a", {})
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for _ in range(module.BACKLOG + 10):
        events.emit("container", "noise", "a", {})
    await reading
    assert len([e async for e in stream]) <= module.BACKLOG
    assert events.followers == 0


def test_events_are_dockers_json() -> None:
    event = Events().emit("container", "die", "c" * 64, {"image": "busybox", "exitCode": "3"})
    body = json.loads(event.encode())
    assert body["status"] == "die" and body["from"] == "busybox" and body["Actor"]["Attributes"]["exitCode"] == "3"
    assert body["time"] == body["timeNano"] // 10**9


async def test_times_grow_even_when_the_clock_does_not() -> None:
    events = Events()
    stamps = [events.emit("container", "x", "a", {}).ns for _ in range(100)]
    assert stamps == sorted(set(stamps))
