"""`/containers`: create, list, inspect, start, stop, kill, rename, update, remove."""

from __future__ import annotations

import asyncio

from aiohttp import web

from runtime.engine import inspect, shortfalls
from runtime.engine.api.call import Call, Handler, answer, nothing
from runtime.engine.container import Container
from runtime.engine.errors import Invalid
from runtime.engine.request import parse_create
from runtime.engine.top import columns, table


def _named(call: Call) -> Container:
    return call.engine.core.registry.find(call.names["id"])


async def create(call: Call) -> web.StreamResponse:
    """POST /containers/create."""
    engine = call.engine
    request = parse_create(await call.json(), trusted=engine.core.config.trusted)
    container = await engine.containers.create(request, call.text("name"))
    return answer({"Id": container.id, "Warnings": warnings(container) + _unheld(call, container)}, 201)


def _unheld(call: Call, container: Container) -> list[str]:
    core = call.engine.core
    return shortfalls.of_container(container.record.host.resources, core.offers, core.device)


def warnings(container: Container) -> list[str]:
    """What was asked for, is not done, and does not keep the container from running."""
    record = container.record
    kept = [t for t in record.process.volumes if t not in {v.target for v in record.host.volumes}]
    if not kept or not record.host.resources.disk_size:
        return []
    return [
        f"{', '.join(kept)[:500]} (VOLUME of the image) stay in the writable layer, within its size, and go with it."
    ]


async def listing(call: Call) -> web.StreamResponse:
    """GET /containers/json."""
    core = call.engine.core
    filters = call.filters(inspect.LIST_FILTERS)
    limit = call.number("limit") or 0
    every = call.flag("all") or limit > 0 or bool(filters.get("status") or filters.get("exited"))
    newest = sorted(core.registry, key=lambda c: c.record.created_ns, reverse=True)
    before = [core.registry.find(x).record.created_ns for x in filters.get("before")]
    since = [core.registry.find(x).record.created_ns for x in filters.get("since")]
    rows = []
    for container in newest:
        created = container.record.created_ns
        if not every and not container.state.is_live and container.state.value != "restarting":
            continue
        if (before and created >= min(before)) or (since and created <= max(since)):
            continue
        endpoints = core.networks.endpoints(container.id)
        if inspect.matches(container, filters, endpoints):
            size = (await asyncio.to_thread(core.driver.usage, container.id)).used_bytes if call.flag("size") else None
            rows.append(inspect.row(container, endpoints, size))
    return answer(rows[:limit] if limit > 0 else rows)


async def details(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/json."""
    container, engine = _named(call), call.engine
    endpoints = engine.core.networks.endpoints(container.id)
    found = inspect.details(container, endpoints, engine.execs.of(container), engine.core.driver.name)
    found["State"]["Moorage"]["notes"] = _unheld(call, container)
    if call.flag("size"):
        used = await asyncio.to_thread(engine.core.driver.usage, container.id)
        found |= {"SizeRw": used.used_bytes, "SizeRootFs": used.used_bytes}
    return answer(found)


async def start(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/start."""
    await call.engine.lifecycle.start(_named(call))
    return nothing()


def _timeout(call: Call) -> int | None:
    seconds = call.number("t")
    if seconds is not None and not -1 <= seconds <= 86_400:
        raise Invalid(f"t is {seconds}; it must be -1 to 86400 seconds.")
    return seconds


async def stop(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/stop."""
    await call.engine.lifecycle.stop(_named(call), _timeout(call), call.text("signal"))
    return nothing()


async def restart(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/restart."""
    await call.engine.lifecycle.restart(_named(call), _timeout(call), call.text("signal"))
    return nothing()


async def kill(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/kill."""
    call.engine.lifecycle.kill(_named(call), call.text("signal"))
    return nothing()


async def pause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/pause."""
    await call.engine.lifecycle.pause(_named(call))
    return nothing()


async def unpause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/unpause."""
    await call.engine.lifecycle.unpause(_named(call))
    return nothing()


async def rename(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/rename."""
    call.engine.containers.rename(_named(call), call.text("name"))
    return nothing()


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /containers/{id}."""
    await call.engine.containers.remove(_named(call), force=call.flag("force"), volumes=call.flag("v"))
    return nothing()


async def update(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/update: limits of a living container, without a restart."""
    container = _named(call)
    warnings = await call.engine.limits.update(container, await call.json())
    return answer({"Warnings": warnings + _unheld(call, container)})


async def top(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/top."""
    container, titles = _named(call), columns(call.text("ps_args"))
    pids = await asyncio.to_thread(call.engine.core.cgroups.pids, container.cgroup) if container.state.is_live else []
    return answer(await asyncio.to_thread(table, container, pids, titles))


async def prune(call: Call) -> web.StreamResponse:
    """POST /containers/prune."""
    gone = []
    for container in call.engine.core.registry:
        if container.state.can_delete:
            await call.engine.containers.remove(container)
            gone.append(container.id)
    return answer({"ContainersDeleted": gone, "SpaceReclaimed": 0})


ROUTES: dict[str, Handler] = {
    "POST /containers/create": create,
    "GET /containers/json": listing,
    "POST /containers/prune": prune,
    "GET /containers/{id}/json": details,
    "POST /containers/{id}/start": start,
    "POST /containers/{id}/stop": stop,
    "POST /containers/{id}/restart": restart,
    "POST /containers/{id}/kill": kill,
    "POST /containers/{id}/pause": pause,
    "POST /containers/{id}/unpause": unpause,
    "POST /containers/{id}/rename": rename,
    "POST /containers/{id}/update": update,
    "GET /containers/{id}/top": top,
    "DELETE /containers/{id}": remove,
}
