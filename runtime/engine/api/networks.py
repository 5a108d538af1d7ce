"""`/networks`: list, create, inspect, remove."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from runtime.engine.api.call import Call, Handler, answer, nothing
from runtime.engine.errors import Forbidden, Invalid, NotFound
from runtime.engine.fields import Fields
from runtime.engine.units import rfc3339
from runtime.network.model import Network

FILTERS = frozenset({"name", "id", "driver", "label", "type", "scope", "dangling"})
BUILT_IN = {"none": ("null", "0" * 63 + "1"), "host": ("host", "0" * 63 + "2")}


def _blank(name: str) -> dict[str, Any]:
    driver, identity = BUILT_IN[name]
    ipam: dict[str, Any] = {"Driver": "default", "Options": None, "Config": []}
    return _shape(name, identity, driver, 0.0) | {"IPAM": ipam}


def _shape(name: str, identity: str, driver: str, created: float) -> dict[str, Any]:
    return {
        "Name": name,
        "Id": identity,
        "Created": rfc3339(int(created * 1e9)),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv6": False,
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def _shown(call: Call, network: Network, *, members: bool) -> dict[str, Any]:
    found = _shape(network.name, network.id, "bridge", network.created)
    found |= {
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": network.subnet, "Gateway": network.gateway}],
        },
        "Internal": network.internal,
        "Options": {**network.options, "com.docker.network.bridge.name": network.bridge},
        "Labels": dict(network.labels),
    }
    if members:
        core = call.engine.core
        names = {c.id: c.name for c in core.registry}
        found["Containers"] = {
            e.container_id: {
                "Name": names.get(e.container_id, ""),
                "EndpointID": e.id,
                "MacAddress": e.mac,
                "IPv4Address": f"{e.address}/{e.prefix}",
                "IPv6Address": "",
            }
            for e in core.networks.members(network.id)
        }
    return found


async def listing(call: Call) -> web.StreamResponse:
    """GET /networks."""
    filters = call.filters(FILTERS)
    rows = [_shown(call, n, members=False) for n in call.engine.core.networks.list()] + [_blank(n) for n in BUILT_IN]
    return answer(
        [
            r
            for r in rows
            if filters.pattern("name", r["Name"])
            and filters.prefix("id", r["Id"])
            and filters.exact("driver", r["Driver"])
            and filters.exact("scope", "local")
            and filters.labels(r["Labels"])
        ]
    )


async def create(call: Call) -> web.StreamResponse:
    """POST /networks/create."""
    f = Fields(await call.json(), "body")
    name = f.text("Name", limit=128)
    if not name or name in BUILT_IN:
        raise Invalid(f"{name!r} cannot be a network's name.")
    driver = f.text("Driver", "bridge", limit=64) or "bridge"
    if driver != "bridge":
        raise NotFound(
            f"could not find plugin {driver[:64]} in v1 plugin registry: plugin not found.",
            "Only bridge networks are here.",
        )
    if f.flag("EnableIPv6"):
        raise Invalid("Networks are IPv4 only.")
    configs = f.object("IPAM").objects("Config", limit=8)
    subnet = next((c.text("Subnet", limit=18) for c in configs if c.text("Subnet", limit=18)), None)
    network = await call.engine.core.networks.create(
        name, subnet=subnet, labels=f.mapping("Labels"), options=f.mapping("Options"), internal=f.flag("Internal")
    )
    call.engine.core.events.emit("network", "create", network.id, {"name": network.name, "type": "bridge"})
    return answer({"Id": network.id, "Warning": ""}, 201)


async def details(call: Call) -> web.StreamResponse:
    """GET /networks/{name}."""
    name = call.names["name"]
    for built_in, (_, identity) in BUILT_IN.items():
        if name in (built_in, identity):
            return answer(_blank(built_in))
    return answer(_shown(call, call.engine.core.networks.get(name), members=True))


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /networks/{name}."""
    if call.names["name"] in BUILT_IN:
        raise Forbidden(f"{call.names['name']} is a pre-defined network and cannot be removed.")
    core = call.engine.core
    network = core.networks.get(call.names["name"])
    await core.networks.remove(network.id)
    core.events.emit("network", "destroy", network.id, {"name": network.name, "type": "bridge"})
    return nothing()


ROUTES: dict[str, Handler] = {
    "GET /networks": listing,
    "POST /networks/create": create,
    "GET /networks/{name}": details,
    "DELETE /networks/{name}": remove,
}
