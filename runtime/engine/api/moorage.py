"""What Docker's API has no place for: all counters at once, group limits, leftovers, the way down."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from runtime.engine.api.call import Call, Handler, answer, nothing
from runtime.engine.errors import Invalid
from runtime.engine.stats import moorage_stats


async def stats(call: Call) -> web.StreamResponse:
    """GET /moorage/stats."""
    core = call.engine.core
    readings = await call.engine.stats.sample_all()
    found = [moorage_stats(c, readings[c.id]) for c in core.registry if c.id in readings]
    return answer({"at": time.time(), "containers": found})


async def log_paths(call: Call) -> web.StreamResponse:
    """GET /moorage/log-paths."""
    return answer(
        {
            c.id: {"name": c.name, "labels": c.labels, "path": str(c.log), "state": c.state.value}
            for c in call.engine.core.registry
        }
    )


async def groups(call: Call) -> web.StreamResponse:
    """POST /moorage/groups."""
    await call.engine.limits.set_group(await call.json())
    return nothing()


async def leftovers(call: Call) -> web.StreamResponse:
    """GET /moorage/leftovers."""
    return answer(await call.engine.leftovers())


async def shutdown(call: Call) -> web.StreamResponse:
    """POST /moorage/shutdown."""
    remove = call.text("remove")
    if remove not in ("", "containers"):
        raise Invalid(f"remove={remove[:32]} is not known.", "Leave it out, or give remove=containers.")
    engine = call.engine
    left = await engine.remove_everything() if remove else {}
    asyncio.get_running_loop().call_later(0.05, engine.stop)
    return answer({"leftovers": left})


ROUTES: dict[str, Handler] = {
    "GET /moorage/stats": stats,
    "GET /moorage/log-paths": log_paths,
    "POST /moorage/groups": groups,
    "GET /moorage/leftovers": leftovers,
    "POST /moorage/shutdown": shutdown,
}
