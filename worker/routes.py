"""Which servers stand in the route: decided from what is desired and what is known. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from worker.ingress_table import AppRoute, Server
from worker.protocol import ObservedInstance, Route

HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # anything else never reaches HAProxy's files

OUT = frozenset({"absent", "pulling", "creating", "failed", "unhealthy", "draining", "stopped"})


def app_routes(routes: Iterable[Route], known: Callable[[str], ObservedInstance | None]) -> list[AppRoute]:
    """The host's routes with addresses. Healthy instances take the requests; where there is none, those on their way up or
    just restarted keep them, so that HAProxy's own retries bridge a restart. Unhealthy ones are out."""
    return [_route(route, [o for name in route.instances if (o := known(name))]) for route in routes]


def _route(route: Route, observed: list[ObservedInstance]) -> AppRoute:
    able = [o for o in observed if o.address and o.state not in OUT]
    chosen = [o for o in able if o.state == "healthy"] or able
    servers = tuple(Server(o.id, o.address, o.port) for o in chosen)
    names = tuple(name for n in route.names if HOST_NAME.fullmatch(name := n.lower()))
    page = "unreachable" if route.instances and not servers else route.page
    return AppRoute(app=route.app, names=names, servers=servers, page=page)
