"""`/volumes`: create, list, inspect, remove, prune; and `/moorage/volumes`, what Docker has no place for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from aiohttp import web

from runtime.engine.api.call import Call, Handler, answer, nothing, stream
from runtime.engine.api.streaming import streams
from runtime.engine.errors import Invalid, NotFound
from runtime.engine.fields import Fields
from runtime.engine.units import parse_size, rfc3339
from runtime.storage.volumeplan import DATA
from runtime.storage.volumes import Volume

FILTERS = frozenset({"name", "driver", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})
_TRUE, _FALSE = ("1", "true"), ("0", "false")


def shown(call: Call, volume: Volume) -> dict[str, Any]:
    """A volume as Docker shows it."""
    store = call.engine.volumes.store
    return {
        "CreatedAt": rfc3339(volume.created_ns),
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": str(store.folder(volume.name) / DATA),
        "Name": volume.name,
        "Options": (volume.options | ({"size": str(volume.size_bytes)} if volume.size_bytes else {})) or None,
        "Scope": "local",
    }


async def listing(call: Call) -> web.StreamResponse:
    """GET /volumes."""
    filters = call.filters(FILTERS)
    volumes = call.engine.volumes
    dangling = filters.get("dangling")
    if any(value not in (*_TRUE, *_FALSE) for value in dangling):
        raise Invalid(f"invalid filter 'dangling={dangling[0][:32]}'.", "Use true or false.")
    found = [
        shown(call, v)
        for v in volumes.store.list()
        if filters.pattern("name", v.name)
        and filters.exact("driver", "local")
        and filters.labels(v.labels)
        and (not dangling or (not volumes.users(v.name)) is (dangling[0] in _TRUE))
    ]
    return answer({"Volumes": found, "Warnings": None})


async def create(call: Call) -> web.StreamResponse:
    """POST /volumes/create."""
    f = Fields(await call.json(), "body")
    driver = f.text("Driver", "local", limit=64) or "local"
    if driver != "local":
        raise NotFound(f"create: error looking up volume plugin {driver[:64]}: plugin not found.", "Use local.")
    if f.data.get("ClusterVolumeSpec"):
        raise Invalid("Cluster volumes are not offered.")
    volume = await call.engine.volumes.create(
        f.text("Name", limit=128),
        labels=f.mapping("Labels", limit=64),
        options=f.mapping("DriverOpts", limit=16, each=256),
    )
    return answer(shown(call, volume), 201)


async def details(call: Call) -> web.StreamResponse:
    """GET /volumes/{name}."""
    volume = call.engine.volumes.store.get(call.names["name"])
    used = await asyncio.to_thread(call.engine.volumes.store.used_bytes, volume.name)
    status = {"size_bytes": volume.size_bytes, "used_bytes": used, "seeded": volume.seeded}
    return answer(shown(call, volume) | {"Status": status})


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /volumes/{name}."""
    await call.engine.volumes.remove(call.names["name"], force=call.flag("force"))
    return nothing()


async def prune(call: Call) -> web.StreamResponse:
    """POST /volumes/prune: anonymous ones, as of 1.42, unless `all` is asked for."""
    filters = call.filters(PRUNE_FILTERS)
    everything = call.version < (1, 42) or any(value in _TRUE for value in filters.get("all"))
    gone, freed = await call.engine.volumes.prune(filters, anonymous_only=not everything)
    return answer({"VolumesDeleted": gone, "SpaceReclaimed": freed})


async def change(call: Call) -> web.StreamResponse:
    """POST /moorage/volumes/{name}: another size, also while it is mounted."""
    f = Fields(await call.json(), "body")
    size = f.data.get("size")
    wanted = parse_size(size, "size") if isinstance(size, str) else f.integer("size", low=1, high=1 << 60)
    live = await asyncio.to_thread(call.engine.volumes.store.set_size, call.names["name"], wanted)
    return answer({"live": live, "size_bytes": wanted})


@streams
async def snapshot(call: Call) -> web.StreamResponse:
    """GET /moorage/volumes/{name}/snapshot: the content at one moment as a tar; with `frames`, in chunks with their lengths."""
    name, snapshots = call.names["name"], call.engine.snapshots
    framed = call.flag("frames")
    async with snapshots.taken(name) as copy, aclosing(snapshots.frames(name, copy)) as frames:
        response = await stream(call, "application/vnd.moorage.frames" if framed else "application/x-tar")
        async for chunk in frames:
            await response.write(len(chunk).to_bytes(4) + chunk if framed else chunk)
        if framed:
            await response.write(bytes(4))
    return response


async def restore(call: Call) -> web.StreamResponse:
    """PUT /moorage/volumes/{name}/content: a tar, plain or compressed, in the place of what is there; `digest` is the plain tar's."""
    digest = call.text("digest")
    if not digest.startswith("sha256:"):
        raise Invalid("Give digest=sha256:… of the tar.")
    call.engine.volumes.store.get(call.names["name"])
    told = await call.engine.snapshots.restore(call.names["name"], digest, call.request.content.iter_any())
    return answer(told)


async def usage_rows(call: Call) -> list[dict[str, Any]]:
    """`Volumes` of GET /system/df."""
    volumes = call.engine.volumes
    rows = []
    for volume in volumes.store.list():
        used = await asyncio.to_thread(volumes.store.used_bytes, volume.name)
        data = {"Size": used, "RefCount": len(volumes.users(volume.name))}
        rows.append(shown(call, volume) | {"UsageData": data})
    return rows


ROUTES: dict[str, Handler] = {
    "GET /volumes": listing,
    "POST /volumes/create": create,
    "POST /volumes/prune": prune,
    "GET /volumes/{name}": details,
    "DELETE /volumes/{name}": remove,
    "POST /moorage/volumes/{name}": change,
    "GET /moorage/volumes/{name}/snapshot": snapshot,
    "PUT /moorage/volumes/{name}/content": restore,
}
