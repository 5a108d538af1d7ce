"""HTTP on the engine's socket: routing with and without `/vX.YY`, errors in Docker's words, streams ended with the client."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runtime.engine.api import archives, containers, execs, images, moorage, networks, streams, system, volumes
from runtime.engine.api.call import Call, Handler, nothing
from runtime.engine.config import API_VERSION, MIN_API_VERSION, VERSION
from runtime.engine.errors import EngineFault, Invalid, NotFound, NotModified, Unsupported
from runtime.errors import RuntimeFault
from runtime.images.faults import RegistryFault

if TYPE_CHECKING:
    from runtime.engine.daemon import Engine

log = logging.getLogger("moorage.engine.api")
VERSIONED = re.compile(r"/v(\d{1,2})\.(\d{1,3})(/.*)")
ABSENT = (
    "swarm",
    "nodes",
    "services",
    "tasks",
    "secrets",
    "configs",
    "plugins",
    "build",
    "session",
    "grpc",
    "distribution",
)
STATUS = {
    "NoSuchImage": 404,
    "ImageInUse": 409,
    "NoSuchNetwork": 404,
    "NetworkInUse": 409,
    "NetworkFault": 400,
    "ImageFault": 400,
    "NoSuchVolume": 404,
    "VolumeInUse": 409,
    "StorageFault": 400,
    "CgroupFault": 409,
}
HEADERS = {
    "Api-Version": API_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Moorage/{VERSION} (linux)",
}
ROUTES: Mapping[str, Handler] = {
    **system.ROUTES,
    **containers.ROUTES,
    **streams.ROUTES,
    **execs.ROUTES,
    **images.ROUTES,
    **archives.ROUTES,
    **networks.ROUTES,
    **volumes.ROUTES,
    **moorage.ROUTES,
}


class Router:
    """Routes by method and first segment; `{name}` matches one segment, `{name:path}` any number."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._groups: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        for route, handler in routes.items():
            method, _, path = route.partition(" ")
            pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", path)
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
            self._groups.setdefault((method, path.split("/")[1]), []).append((re.compile(pattern), handler))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The handler and the path's names; raises Unsupported for Docker's parts that are not here, NotFound else."""
        first = path.split("/", 2)[1] if "/" in path else ""
        for pattern, handler in self._groups.get((method, first), ()):
            match = pattern.fullmatch(path)
            if match:
                return handler, match.groupdict()
        if first in ABSENT:
            raise Unsupported(
                f"{first} is not part of this engine.",
                "It runs containers; build images elsewhere and load or pull them.",
            )
        raise NotFound(f"page not found: {method} {path[:200]}")


def split_version(path: str) -> tuple[str, tuple[int, int]]:
    """The path without its version, and the version; raises Invalid for one that is too old or too new."""
    match = VERSIONED.fullmatch(path)
    if not match:
        return path, (1, 44)
    version = int(match[1]), int(match[2])
    low, high = (tuple(int(n) for n in text.split(".")) for text in (MIN_API_VERSION, API_VERSION))
    if version < low:
        raise Invalid(
            f"client version {match[1]}.{match[2]} is too old. Minimum supported API version is {MIN_API_VERSION}.",
            "Please upgrade your client to a newer version.",
        )
    if version > high:
        raise Invalid(
            f"client version {match[1]}.{match[2]} is too new. Maximum supported API version is {API_VERSION}."
        )
    return match[3], version


class Api:
    """The HTTP side of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._router = Router(ROUTES)
        self.server = web.Server(
            self._handle,  # type: ignore[arg-type]
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=75,
            max_line_size=65_536,
            max_field_size=65_536,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            path, version = split_version(request.path)
            handler, names = self._router.find(request.method, path)
            call = Call(self._engine, request, names, version)
            if getattr(handler, "streams", False):
                response = await handler(call)
            else:
                response = await self._unbroken(handler(call))
        except NotModified:
            response = nothing(304)
        except RuntimeFault as fault:
            response = refuse(status_of(fault), str(fault))
        except (web.HTTPException, asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # the boundary: one request's defect ends one request
            log.exception("%s %s", request.method, request.path)
            response = refuse(500, f"The engine failed: {type(error).__name__}: {error}. Look into its log.")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _unbroken(self, work: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
        """Run a handler to its end though the client may leave: half a start is worse than an unread answer."""
        task = self._engine.core.keep(work, "request")
        response: web.StreamResponse = await asyncio.shield(task)
        return response


def status_of(fault: RuntimeFault) -> int:
    """The HTTP status of a refusal."""
    if isinstance(fault, EngineFault):
        return fault.status
    if isinstance(fault, RegistryFault) and fault.status in {401, 403}:
        return fault.status
    return next((STATUS[kind.__name__] for kind in type(fault).__mro__ if kind.__name__ in STATUS), 500)


def refuse(status: int, message: str) -> web.Response:
    """Docker's error body."""
    return web.Response(body=json.dumps({"message": message}).encode(), status=status, content_type="application/json")
