"""Which name leads to which backend and which servers stand in it. Pure; kept on disk as `routes.json`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

SLOTS_STEP = 64
SPARE = (
    8  # below this many free backends the configuration grows by a step, which is the only thing that needs a reload
)

type Page = str  # a PageState of the protocol, or "unreachable"


@dataclass(frozen=True, slots=True)
class Server:
    """One instance in a backend; `name` is its id."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoute:
    """An app's names with its servers; without servers the names answer with the page of `page`. `slot` is N of `app_N`."""

    app: str
    names: tuple[str, ...]
    servers: tuple[Server, ...] = ()
    page: Page = "starting"
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All routes of a host and how many backends its configuration has."""

    routes: tuple[AppRoute, ...] = ()
    slots: int = SLOTS_STEP

    @property
    def hosts(self) -> dict[str, str]:
        """`hosts.map`: names of apps that have a server → backend."""
        return {name: f"app_{r.slot}" for r in self.routes if r.slot is not None for name in r.names}

    @property
    def states(self) -> dict[str, str]:
        """`states.map`: names of apps that have none → page."""
        return {name: r.page for r in self.routes if r.slot is None for name in r.names}

    @property
    def servers(self) -> dict[tuple[str, str], Server]:
        """All servers by (backend, name)."""
        return {(f"app_{r.slot}", s.name): s for r in self.routes if r.slot is not None for s in r.servers}

    def to_json(self) -> dict[str, Any]:
        """The table as JSON-ready values."""
        rows = [
            {
                "app": r.app,
                "names": r.names,
                "page": r.page,
                "slot": r.slot,
                "servers": [[s.name, s.address, s.port] for s in r.servers],
            }
            for r in self.routes
        ]
        return {"slots": self.slots, "routes": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        routes = tuple(
            AppRoute(
                app=r["app"],
                names=tuple(r["names"]),
                page=r["page"],
                slot=r["slot"],
                servers=tuple(Server(name, address, int(port)) for name, address, port in r["servers"]),
            )
            for r in data["routes"]
        )
        return cls(routes=routes, slots=int(data["slots"]))


def assign(wanted: Iterable[AppRoute], before: Table, occupied: Collection[int] = ()) -> Table:
    """Give each wanted route with servers a backend: its old one, else a free one.

    `occupied` are backends in which HAProxy still has servers that are leaving: nobody else may move in. The number of
    backends only grows.
    """
    wanted = sorted(wanted, key=lambda r: r.app)
    old = {r.app: r.slot for r in before.routes if r.slot is not None}
    kept = {r.app: old[r.app] for r in wanted if r.servers and r.app in old}
    used = set(kept.values())
    blocked = used | set(occupied)
    routes, following = [], 0
    for route in wanted:
        if not route.servers:
            routes.append(replace(route, slot=None))
            continue
        slot = kept.get(route.app)
        if slot is None:
            while following in blocked:
                following += 1
            slot = following
            used.add(slot)
            blocked.add(slot)
        routes.append(replace(route, slot=slot))
    needed = max(len(blocked), max(blocked, default=-1) + 1) + SPARE
    slots = max(before.slots, -(-needed // SLOTS_STEP) * SLOTS_STEP)
    return Table(routes=tuple(routes), slots=slots)
