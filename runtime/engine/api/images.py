"""`/images`: list, inspect, load, pull, tag, remove."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, BinaryIO, cast

from aiohttp import web

from runtime.engine import imagejson
from runtime.engine.api.archives import load_root
from runtime.engine.api.bodies import Body
from runtime.engine.api.call import Call, Handler, answer, nothing, stream
from runtime.engine.errors import Invalid
from runtime.engine.fields import Fields
from runtime.errors import RuntimeFault
from runtime.images.format import Manifest
from runtime.images.records import PullProgress, RegistryAuth

DOCKER_IO = "docker.io/library/"
HUB = ("index.docker.io", "registry-1.docker.io", "docker.io")
PROGRESS_S = 0.1
MAX_AUTH = 65_536


async def listing(call: Call) -> web.StreamResponse:
    """GET /images/json."""
    core = call.engine.core
    filters = call.filters(imagejson.FILTERS)
    images = await asyncio.to_thread(core.images.list)
    used = [c.record.image_id for c in core.registry]
    return answer([imagejson.row(i, used.count(i.id)) for i in images if imagejson.matches(i, filters)])


async def details(call: Call) -> web.StreamResponse:
    """GET /images/{name}/json."""
    core = call.engine.core
    return answer(imagejson.details(await asyncio.to_thread(core.images.resolve, call.names["name"]), core.driver.name))


async def history(call: Call) -> web.StreamResponse:
    """GET /images/{name}/history."""
    core = call.engine.core
    image = await asyncio.to_thread(core.images.resolve, call.names["name"])
    layers = [core.driver.layer(chain_id) for chain_id in image.chain_ids]
    return answer(imagejson.history(image, [layer.size_bytes if layer else 0 for layer in layers]))


async def load(call: Call) -> web.StreamResponse:
    """POST /images/load."""
    core = call.engine.core
    body = io.BufferedReader(Body(call.request), 1 << 20)
    results = await asyncio.to_thread(core.images.load, cast(BinaryIO, body))
    lines = []
    for result in results:
        for name in result.names:
            lines.append({"stream": f"Loaded image: {name}\n"})
        if not result.names:
            lines.append({"stream": f"Loaded image ID: {result.image.id}\n"})
        core.events.emit("image", "load", result.image.id, {"name": (*result.names, result.image.id)[0]})
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return web.Response(body=text, content_type="application/json")


def registry_auth(header: str) -> RegistryAuth | None:
    """`X-Registry-Auth`: base64url of a JSON object, as Docker's clients send it; raises Invalid without repeating it."""
    if not header:
        return None
    if len(header) > MAX_AUTH:
        raise Invalid("X-Registry-Auth is too long.")
    try:
        data = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error) as error:
        raise Invalid("X-Registry-Auth is not base64url of a JSON object.") from error
    f = Fields(data, "X-Registry-Auth")
    token = f.text("registrytoken", limit=MAX_AUTH)
    user, password = f.text("username", limit=1024), f.text("password", limit=MAX_AUTH)
    return RegistryAuth(token=token, username=user, password=password) if token or user else None


async def pull(call: Call) -> web.StreamResponse:
    """POST /images/create?fromImage=: pull, with Docker's progress lines. A refusal before the first line has a status of its own."""
    if call.text("fromSrc"):
        return await load_root(call)
    name, tag = call.text("fromImage"), call.text("tag")
    if not name:
        raise Invalid("fromImage is missing.")
    reference = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}" if tag else name
    auth = registry_auth(call.request.headers.get("X-Registry-Auth", ""))

    def last(image: Any) -> list[dict[str, Any]]:
        digest = {"status": f"Digest: {image.manifest_digest}"}
        return [digest, {"status": f"Status: Downloaded newer image for {reference}"}]

    return await _told(call, lambda progress: _pull(call, reference, auth, progress), last)


async def _told(
    call: Call, begin: Callable[[Progress], Coroutine[Any, Any, Any]], last: Callable[[Any], list[dict[str, Any]]]
) -> web.StreamResponse:
    """Docker's lines of a work's progress, and what it ends with."""
    progress = Progress()
    work = call.engine.core.keep(begin(progress), "transfer of an image")
    first = await anext(progress, None)
    if first is None:
        result = await work  # raises what it failed with
    response = await stream(call, "application/json")
    try:
        if first is not None:
            await response.write(_line(first))
        async for step in progress:
            await response.write(_line(step))
        result = await work
        for line in last(result):
            await response.write(_line(line))
    except RuntimeFault as fault:
        await response.write(_line({"errorDetail": {"message": str(fault)}, "error": str(fault)}))
    except ConnectionError:
        await asyncio.wait({work})
    return response


async def push(call: Call) -> web.StreamResponse:
    """POST /images/{name}/push: to the registry of its name, with Docker's progress lines."""
    name, tag = call.names["name"], call.text("tag") or "latest"
    reference = f"{name}:{tag}"
    auth = registry_auth(call.request.headers.get("X-Registry-Auth", ""))

    def last(manifest: Manifest) -> list[dict[str, Any]]:
        size = len(manifest.data)
        aux = {"Tag": tag, "Digest": manifest.digest, "Size": size}
        return [{"status": f"{tag}: digest: {manifest.digest} size: {size}"}, {"progressDetail": {}, "aux": aux}]

    async def work(progress: Progress) -> Manifest:
        core = call.engine.core
        try:
            manifest = await asyncio.to_thread(core.images.push, reference, auth, progress.step)
            core.events.emit("image", "push", reference, {"name": reference})
            return manifest
        finally:
            progress.end()

    return await _told(call, work, last)


async def sign_in(call: Call) -> web.StreamResponse:
    """POST /auth: whether a registry takes a name and a password, as `docker login` asks."""
    f = Fields(await call.json(), "The body")
    auth = RegistryAuth(username=f.text("username", limit=1024), password=f.text("password", limit=MAX_AUTH))
    address = f.text("serveraddress", limit=1024) or "docker.io"
    domain = address.partition("://")[2] or address
    domain = domain.partition("/")[0]
    await asyncio.to_thread(call.engine.core.images.sign_in, "docker.io" if domain in HUB else domain, auth)
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})


async def _pull(call: Call, reference: str, auth: RegistryAuth | None, progress: Progress) -> Any:
    core = call.engine.core
    try:
        image = await asyncio.to_thread(core.images.pull, reference, auth, progress.step)
        core.events.emit("image", "pull", image.id, {"name": reference})
        return image
    finally:
        progress.end()


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


class Progress(AsyncIterator[dict[str, Any]]):
    """Steps of a pull, from its thread to the response; figures of one layer at most ten times a second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._last: dict[str, tuple[str, float]] = {}

    def step(self, step: PullProgress) -> None:
        """From the pulling thread."""
        now = self._loop.time()
        status, at = self._last.get(step.what, ("", 0.0))
        if status == step.status and now - at < PROGRESS_S and step.current_bytes < step.total_bytes:
            return
        self._last[step.what] = (step.status, now)
        body: dict[str, Any] = {
            "status": step.status,
            "id": step.what.removeprefix("sha256:")[:12] if "sha256:" in step.what else step.what,
        }
        if step.total_bytes:
            body["progressDetail"] = {"current": step.current_bytes, "total": step.total_bytes}
        self._loop.call_soon_threadsafe(self._queue.put_nowait, body)

    def end(self) -> None:
        """No more steps."""
        self._queue.put_nowait(None)

    async def __anext__(self) -> dict[str, Any]:
        found = await self._queue.get()
        if found is None:
            self._queue.put_nowait(None)
            raise StopAsyncIteration
        return found


async def tag(call: Call) -> web.StreamResponse:
    """POST /images/{name}/tag."""
    core = call.engine.core
    repository, version = call.text("repo").removeprefix(DOCKER_IO), call.text("tag")
    if not repository:
        raise Invalid("repo is missing.")
    target = f"{repository}:{version or 'latest'}"
    await asyncio.to_thread(core.images.tag, call.names["name"], target)
    image = await asyncio.to_thread(core.images.resolve, target)
    core.events.emit("image", "tag", image.id, {"name": target})
    return nothing(201)


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /images/{name}."""
    core = call.engine.core
    used = {c.record.image_id for c in core.registry}
    removed = await asyncio.to_thread(core.images.remove, call.names["name"], in_use=used, force=call.flag("force"))
    for name in removed.untagged:
        core.events.emit("image", "untag", name, {"name": name})
    for identity in removed.deleted:
        core.events.emit("image", "delete", identity, {"name": identity})
    return answer([*({"Untagged": n} for n in removed.untagged), *({"Deleted": d} for d in removed.deleted)])


ROUTES: dict[str, Handler] = {
    "GET /images/json": listing,
    "POST /images/load": load,
    "POST /images/create": pull,
    "POST /auth": sign_in,
    "POST /images/{name:path}/push": push,
    "GET /images/{name:path}/json": details,
    "GET /images/{name:path}/history": history,
    "POST /images/{name:path}/tag": tag,
    "DELETE /images/{name:path}": remove,
}
