"""What happened, told to whoever listens: a ring of the last events and bounded queues of followers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from runtime.engine.filters import Filters

RING = 1024
BACKLOG = 4096
KNOWN_FILTERS: frozenset[str] = frozenset(
    {"type", "event", "container", "image", "label", "network", "scope", "volume", "daemon"}
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `kind` is Docker's Type, or `moorage`."""

    ns: int
    kind: str
    action: str
    id: str
    attributes: Mapping[str, str]

    def encode(self) -> bytes:
        """The event as Docker's JSON, one line."""
        body: dict[str, object] = {}
        if self.kind in ("container", "image"):
            body = {"status": self.action, "id": self.id}
            if self.kind == "container":
                body["from"] = self.attributes.get("image", "")
        body |= {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.ns // 10**9,
            "timeNano": self.ns,
        }
        return json.dumps(body, separators=(",", ":")).encode() + b"\n"

    def matches(self, filters: Filters) -> bool:
        """Whether a follower with these filters wants it. `exec_start: sh` matches the event `exec_start`."""
        if not filters:
            return True
        name = self.attributes.get("name", "")
        return (
            filters.exact("type", self.kind)
            and filters.exact("event", self.action, self.action.partition(":")[0])
            and _names(filters, "container", self.kind in ("container", "moorage"), self.id, name)
            and _names(filters, "network", self.kind == "network", self.id, name)
            and filters.exact("image", self.attributes.get("image", ""), self.id if self.kind == "image" else "")
            and filters.labels(self.attributes)
        )


def _names(filters: Filters, name: str, applies: bool, identity: str, called: str) -> bool:
    wanted = filters.get(name)
    return not wanted or (applies and any(w == called or (w and identity.startswith(w)) for w in wanted))


class Events:
    """The engine's event stream."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=RING)
        self._followers: set[asyncio.Queue[Event | None]] = set()
        self._last = 0

    def emit(self, kind: str, action: str, identity: str, attributes: Mapping[str, str]) -> Event:
        """Record an event and wake the followers; one that is BACKLOG events behind is disconnected, never waited for."""
        self._last = max(time.time_ns(), self._last + 1)
        event = Event(self._last, kind, action, identity, attributes)
        self._ring.append(event)
        for queue in tuple(self._followers):
            if queue.qsize() < BACKLOG:
                queue.put_nowait(event)
                continue
            self._followers.discard(queue)
            queue.put_nowait(None)
        return event

    @property
    def followers(self) -> int:
        """How many listen."""
        return len(self._followers)

    def close(self) -> None:
        """End all followers."""
        for queue in self._followers:
            queue.put_nowait(None)
        self._followers.clear()

    async def follow(self, filters: Filters, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Event]:
        """Past events from `since_ns`, then new ones until `until_ns` (or without end). Times in ns since 1970."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if until_ns is None or until_ns > time.time_ns():
            self._followers.add(queue)
        try:
            if since_ns is not None:
                for event in tuple(self._ring):
                    if event.ns >= since_ns and (until_ns is None or event.ns <= until_ns) and event.matches(filters):
                        yield event
            while queue in self._followers or not queue.empty():
                found = await _next(queue, until_ns)
                if found is None:
                    return
                if found.matches(filters):
                    yield found
        finally:
            self._followers.discard(queue)


async def _next(queue: asyncio.Queue[Event | None], until_ns: int | None) -> Event | None:
    if until_ns is None:
        return await queue.get()
    try:
        return await asyncio.wait_for(queue.get(), (until_ns - time.time_ns()) / 1e9)
    except TimeoutError:
        return None
