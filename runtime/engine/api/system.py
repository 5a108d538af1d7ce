"""`/_ping`, `/version`, `/info`, `/events`, `/system/df`."""

from __future__ import annotations

import asyncio

from aiohttp import web

from runtime.engine import facts
from runtime.engine.api.call import Call, Handler, answer, stream
from runtime.engine.api.streaming import streams
from runtime.engine.api.volumes import usage_rows as volume_rows
from runtime.engine.config import API_VERSION, MIN_API_VERSION, VERSION
from runtime.engine.events import KNOWN_FILTERS
from runtime.engine.units import parse_time_ns, rfc3339


async def ping(call: Call) -> web.StreamResponse:
    """What every client asks first."""
    body = b"" if call.request.method == "HEAD" else b"OK"
    return web.Response(
        body=body, content_type="text/plain", headers={"Cache-Control": "no-cache", "Pragma": "no-cache"}
    )


async def version(call: Call) -> web.StreamResponse:
    """GET /version."""
    host = facts.host()
    details = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Arch": host.architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{host.python}",
        "KernelVersion": host.kernel,
        "Os": "linux",
    }
    return answer(
        {
            "Platform": {"Name": "Moorage"},
            "Components": [{"Name": "Engine", "Version": VERSION, "Details": details}],
            "Version": VERSION,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": f"python{host.python}",
            "Os": "linux",
            "Arch": host.architecture,
            "KernelVersion": host.kernel,
            "BuildTime": "",
        }
    )


async def info(call: Call) -> web.StreamResponse:
    """GET /info."""
    core = call.engine.core
    images = await asyncio.to_thread(core.images.list)
    return answer(facts.info(core, len(images)))


@streams
async def events(call: Call) -> web.StreamResponse:
    """GET /events: what happened and happens, one JSON object a line."""
    filters = call.filters(KNOWN_FILTERS)
    since, until = call.text("since"), call.text("until")
    found = call.engine.core.events.follow(
        filters, parse_time_ns(since) if since else None, parse_time_ns(until) if until else None
    )
    response = await stream(call, "application/json")
    async for event in found:
        await response.write(event.encode())
    return response


async def disk_usage(call: Call) -> web.StreamResponse:
    """GET /system/df."""
    core = call.engine.core
    images = await asyncio.to_thread(core.images.list)
    used = await asyncio.to_thread(lambda: {c.id: core.driver.usage(c.id).used_bytes for c in core.registry})
    return answer(
        {
            "LayersSize": sum(i.size_bytes for i in images),
            "Images": [
                {
                    "Id": i.id,
                    "ParentId": "",
                    "RepoTags": list(i.repo_tags),
                    "RepoDigests": list(i.repo_digests),
                    "Created": facts.epoch(i.created),
                    "Size": i.size_bytes,
                    "SharedSize": 0,
                    "Labels": dict(i.config.labels),
                    "Containers": sum(c.record.image_id == i.id for c in core.registry),
                }
                for i in images
            ],
            "Containers": [
                {
                    "Id": c.id,
                    "Names": [f"/{c.name}"],
                    "Image": c.record.config.image,
                    "ImageID": c.record.image_id,
                    "Command": " ".join(c.record.process.args),
                    "Created": c.record.created_ns // 10**9,
                    "SizeRw": used.get(c.id, 0),
                    "SizeRootFs": used.get(c.id, 0),
                    "Labels": c.labels,
                    "State": c.state.value,
                    "Status": rfc3339(c.life.started_ns),
                    "Mounts": [],
                }
                for c in core.registry
            ],
            "Volumes": await volume_rows(call),
            "BuildCache": [],
        }
    )


ROUTES: dict[str, Handler] = {
    "GET /_ping": ping,
    "HEAD /_ping": ping,
    "GET /version": version,
    "GET /info": info,
    "GET /events": events,
    "GET /system/df": disk_usage,
}
