"""Images out of the engine, and images made of containers: save, export, commit, diff, import."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import Any, BinaryIO, cast

from aiohttp import web

from runtime.engine import committing
from runtime.engine.api.bodies import Body, flow
from runtime.engine.api.call import Call, Handler, answer
from runtime.engine.api.streaming import streams
from runtime.engine.container import Container
from runtime.engine.errors import Invalid
from runtime.engine.units import rfc3339
from runtime.images import format_building as building
from runtime.images.format import parse_reference
from runtime.images.packing import read_container
from runtime.images.store import host_architecture

_READ_BYTES = 1 << 20


@streams
async def save(call: Call) -> web.StreamResponse:
    """GET /images/get?names=, GET /images/{name}/get: an archive of images."""
    core = call.engine.core
    names = call.request.query.getall("names", []) or [call.names.get("name", "")]
    wanted = [name for text in names for name in text.split(",") if name]
    if not wanted:
        raise Invalid("names is missing.", "Name the images to save.")
    response = await flow(call, core.images.save(wanted))
    for name in wanted:
        core.events.emit("image", "save", name, {"name": name})
    return response


def _container(call: Call, name: str) -> Container:
    return call.engine.core.registry.find(name)


@streams
async def export(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/export: all files of a container. Nobody starts or stops it meanwhile."""
    core, container = call.engine.core, _container(call, call.names["id"])
    async with container.lock:
        plan = await asyncio.to_thread(committing.plan_of, core, container)
        response = await flow(call, read_container(plan, "export"))
    core.emit(container, "export")
    return response


async def changes(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/changes: what `docker diff` shows."""
    core, container = call.engine.core, _container(call, call.names["id"])
    async with container.lock:
        plan = await asyncio.to_thread(committing.plan_of, core, container)
        lines = await asyncio.to_thread(lambda: b"".join(read_container(plan, "changes")))
    found = [json.loads(line) for line in lines.splitlines()]
    return answer([{"Path": f"/{path}".encode(errors="replace").decode(), "Kind": kind} for kind, path in found])


def _name(call: Call) -> str:
    """`repo` and `tag` as one name; the tag may stand in the first."""
    repository, tag = call.text("repo"), call.text("tag")
    return parse_reference(f"{repository}:{tag}" if tag else repository).familiar if repository else ""


def _changes(call: Call) -> tuple[str, ...]:
    return tuple(line for text in call.request.query.getall("changes", []) for line in text.split("\n") if line)


async def commit(call: Call) -> web.StreamResponse:
    """POST /commit: an image of a container as it is now."""
    container = _container(call, call.text("container"))
    request = committing.Commit(
        name=_name(call),
        author=call.text("author"),
        comment=call.text("comment"),
        pause=call.flag("pause", default=True),
        changes=_changes(call),
        config=await call.json(),
    )
    image = await committing.commit(call.engine, container, request)
    return answer({"Id": image.id}, 201)


async def load_root(call: Call) -> web.StreamResponse:
    """POST /images/create?fromSrc=-: an image of a root file system, as `docker import` sends it."""
    core = call.engine.core
    if call.text("fromSrc") != "-":
        raise Invalid('fromSrc is not "-".', "The engine fetches nothing itself: send the tar as the body.")
    name = _name(call)
    run: dict[str, Any] = {}
    building.apply_changes(run, _changes(call))
    history = {"created_by": "docker import", "comment": call.text("message") or "Imported from -"}

    def config(document: dict[str, Any], diff_id: str) -> bytes:
        return building.new_config(
            document,
            diff_id,
            run=run,
            architecture=host_architecture(),
            created=rfc3339(time.time_ns()),
            history=history,
        )

    body = cast(BinaryIO, io.BufferedReader(Body(call.request), _READ_BYTES))
    pieces = iter(lambda: body.read(_READ_BYTES), b"")
    image = await asyncio.to_thread(core.images.add_layer, "", pieces, config, name)
    core.events.emit("image", "import", image.id, {"name": name or image.id})
    return web.Response(body=json.dumps({"status": image.id}).encode() + b"\n", content_type="application/json")


ROUTES: dict[str, Handler] = {
    "GET /images/get": save,
    "GET /images/{name:path}/get": save,
    "GET /containers/{id}/export": export,
    "GET /containers/{id}/changes": changes,
    "POST /commit": commit,
}
