"""`/v2/` on the wire: raw ASGI, because blobs are large and Django would hold a thread for each.

An OCI distribution registry (distribution-spec 1.1). Writing is in `registry_push`, signing in in `registry_token`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from portal.errors import PortalError
from portal.images import grants, manifests, pushing, registry
from portal.images.asgi_http import ClientGone, Incoming, Receive, Scope, Send, discard, headers_of, query_of, send_file
from portal.images.registry import Call, Found, RegistryError
from portal.images.registry_push import LoadApp, Pushed, Reply, Request, begin, put_manifest, upload
from portal.images.registry_token import action_of, challenge, token_answer
from portal.images.store import blob_store
from portal.threads import in_thread
from runtime.images.format import OCI_INDEX

_VERSION = {"docker-distribution-api-version": "registry/2.0"}
_JSON = {"content-type": "application/json", "cache-control": "no-store"}
_CODES = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    409: "DENIED",
    413: "DENIED",
    422: "MANIFEST_INVALID",
}


class RegistryApp:
    """The ASGI application for `/v2/`.

    `load_app` loads an app the actor may deploy, or raises; `pushed` is told of each tag that was pushed and says headers
    for the answer. Both are handed in because apps and releases stand above images.
    """

    def __init__(self, load_app: LoadApp, pushed: Pushed) -> None:
        self._load_app, self._pushed = load_app, pushed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors have the body of the specification, and the client may finish sending."""
        headers, incoming = headers_of(scope), Incoming(receive)
        try:
            await self._serve(scope, headers, incoming, send)
        except (RegistryError, PortalError) as error:
            await _refuse(scope, headers, incoming, send, _in_registry_words(error))
        except ClientGone:
            return  # what came of a blob is in its file; the client asks how far it is and goes on
        else:
            await discard(incoming)

    async def _serve(self, scope: Scope, headers: dict[str, str], incoming: Incoming, send: Send) -> None:
        call, method = registry.parse_path(scope["path"]), str(scope["method"])
        if call.kind == "token":
            await _send(send, Reply(200, _JSON, await token_answer(scope, headers, incoming)))
            return
        caller = await in_thread(grants.caller_of, headers.get("authorization", ""))
        if call.kind == "ping":
            await _send(send, Reply(200, _JSON, b"{}"), head=method == "HEAD")
            return
        if call.kind == "catalog":
            await _send(send, await in_thread(_catalog, caller, scope), head=method == "HEAD")
            return
        team = await in_thread(grants.authorise, caller, call.repository, action_of(call, method))
        if method in ("GET", "HEAD") and call.kind != "upload":
            await _give(call, scope, headers, send)
            return
        assert caller.actor is not None  # a host pulls only
        request = Request(call, caller.actor, team, caller, headers, query_of(scope), incoming)
        await _send(send, await self._write(request, method), head=method == "HEAD")

    async def _write(self, request: Request, method: str) -> Reply:
        call = request.call
        if call.kind == "upload":
            return await upload(request, method)
        if call.kind == "begin" and method == "POST":
            return await begin(request, self._load_app)
        if call.kind == "manifest" and method == "PUT":
            return await put_manifest(request, self._load_app, self._pushed)
        if call.kind == "manifest" and method == "DELETE":
            await in_thread(manifests.delete, request.actor, request.team, call.repository, call.reference)
            return Reply(202)
        if call.kind == "blob" and method == "DELETE":
            await in_thread(pushing.drop_blob, call.repository, registry.check_digest(call.reference))
            return Reply(202)
        raise RegistryError(405, "UNSUPPORTED", f"{method[:20]} is not used here.", {"allow": _allowed(call)})


def _allowed(call: Call) -> str:
    if call.kind == "begin":
        return "POST"
    return {"manifest": "GET, HEAD, PUT, DELETE", "blob": "GET, HEAD, DELETE"}.get(call.kind, "GET, HEAD")


async def _give(call: Call, scope: Scope, headers: dict[str, str], send: Send) -> None:
    """What GET and HEAD answer."""
    head = scope["method"] == "HEAD"
    if call.kind == "tags":
        await _send(send, await in_thread(_tags, call.repository, scope), head=head)
    elif call.kind == "referrers":
        await _send(send, await in_thread(_referrers, call, scope), head=head)
    elif call.kind == "begin":
        raise RegistryError(405, "UNSUPPORTED", "An upload begins with POST.", {"allow": "POST"})
    else:
        await _give_blob(call, scope["method"], headers, send)


def _tags(repository: str, scope: Scope) -> Reply:
    names, more = _page(registry.tags_of(repository), scope)
    return Reply(200, _JSON | _next(scope, more), json.dumps({"name": repository, "tags": names}).encode())


def _catalog(caller: grants.Caller, scope: Scope) -> Reply:
    if scope["method"] not in ("GET", "HEAD"):
        raise RegistryError(405, "UNSUPPORTED", "The catalog is only read.", {"allow": "GET, HEAD"})
    if caller.actor is None or (caller.grants is not None and grants.CATALOG not in caller.grants):
        raise RegistryError(401, "UNAUTHORIZED", "This token was not made for the catalog.")
    teams = grants.readable_teams(caller.actor)
    names, more = _page(registry.repositories(teams, caller.actor.app_slug), scope)
    return Reply(200, _JSON | _next(scope, more), json.dumps({"repositories": names}).encode())


def _page(names: list[str], scope: Scope) -> tuple[list[str], str]:
    query = query_of(scope)
    return registry.page(names, query.get("n", [""])[-1], query.get("last", [""])[-1])


def _next(scope: Scope, last: str) -> dict[str, str]:
    """The Link to the next page (RFC 5988), when there is one."""
    if not last:
        return {}
    query = {name: values[-1] for name, values in query_of(scope).items()} | {"last": last}
    return {"link": f'<{scope["path"]}?{urlencode(query)}>; rel="next"'}


def _referrers(call: Call, scope: Scope) -> Reply:
    query = query_of(scope)
    artifact_type, last = query.get("artifactType", [""])[-1], query.get("last", [""])[-1]
    digest = registry.check_digest(call.reference)
    index, more = manifests.referrers(call.repository, digest, artifact_type, last)
    fields = {"content-type": OCI_INDEX, "cache-control": "no-store"} | _next(scope, more)
    if artifact_type:
        fields["oci-filters-applied"] = "artifactType"
    return Reply(200, fields, json.dumps(index).encode())


async def _give_blob(call: Call, method: str, headers: dict[str, str], send: Send) -> None:
    find = registry.find_manifest if call.kind == "manifest" else registry.find_blob
    found: Found = await in_thread(find, call.repository, call.reference)
    fields = {**_VERSION, **found.headers, "content-length": str(found.size_bytes)}
    if call.kind == "blob":
        fields |= {"accept-ranges": "bytes", "cache-control": "private, max-age=31536000, immutable"}
    part = registry.byte_range(headers.get("range", ""), found.size_bytes) if call.kind == "blob" else None
    start, length = part or (0, found.size_bytes)
    if part is not None:
        fields["content-range"] = f"bytes {start}-{start + length - 1}/{found.size_bytes}"
        fields["content-length"] = str(length)
    status = 206 if part else 200
    if method == "HEAD" or length == 0:
        await _start(send, status, fields)
        await send({"type": "http.response.body", "body": b""})
        return
    with await asyncio.to_thread(blob_store().open, found.digest) as file:
        file.seek(start)
        await _start(send, status, fields)
        await send_file(send, file, length)


async def _start(send: Send, status: int, fields: Mapping[str, str]) -> None:
    rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": rows})


async def _send(send: Send, reply: Reply, *, head: bool = False) -> None:
    fields = _VERSION | dict(reply.headers)
    if reply.status != 204:
        fields["content-length"] = str(len(reply.content))
    await _start(send, reply.status, fields)
    await send({"type": "http.response.body", "body": b"" if head else reply.content})


def _in_registry_words(error: RegistryError | PortalError) -> RegistryError:
    if isinstance(error, RegistryError):
        return error
    code = _CODES.get(error.status, "DENIED")
    return RegistryError(error.status, code, f"{error.message} {error.hint}".strip())


async def _refuse(scope: Scope, headers: dict[str, str], incoming: Incoming, send: Send, error: RegistryError) -> None:
    """The error at once, while the rest of the body is read and thrown away up to a limit (see asgi_http.refuse)."""
    fields: dict[str, Any] = _VERSION | _JSON | dict(error.headers)
    if error.status == 401:
        fields["www-authenticate"] = challenge(scope, headers, _call_of(scope))
    content = b"" if scope["method"] == "HEAD" else json.dumps(error.body()).encode()
    await _start(send, error.status, fields | {"content-length": str(len(content))})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    await discard(incoming)
    await send({"type": "http.response.body", "body": b""})


def _call_of(scope: Scope) -> Call | None:
    try:
        return registry.parse_path(scope["path"])
    except RegistryError:
        return None
