"""`/v2/` on the wire: raw ASGI, because blobs are large and Django would hold a thread for each."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from datetime import UTC, datetime

from portal.accounts.access import actor_of_token
from portal.accounts.actor import Actor
from portal.errors import Unauthenticated
from portal.images import registry
from portal.images.asgi_http import (
    Incoming,
    Receive,
    Scope,
    Send,
    answer_json,
    discard,
    headers_of,
    query_of,
    send_file,
)
from portal.images.registry import Call, Found, RegistryError
from portal.images.store import blob_store
from portal.images.tokens import PULL_TOKEN_S, make_pull_token, pull_repository
from portal.threads import in_thread

SERVICE = "moorage"
_VERSION = {"docker-distribution-api-version": "registry/2.0"}


async def registry_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for `/v2/`."""
    headers = headers_of(scope)
    try:
        await _serve(scope, headers, send)
    except RegistryError as error:
        fields = dict(_VERSION)
        if error.status == 401:
            fields["www-authenticate"] = _challenge(scope, headers)
        await answer_json(send, error.status, error.body(), fields)
    await discard(Incoming(receive))


async def _serve(scope: Scope, headers: dict[str, str], send: Send) -> None:
    call = registry.parse_path(scope["path"])
    if call.kind == "token":
        await _give_token(scope, headers, send)
        return
    if scope["method"] not in ("GET", "HEAD"):
        raise RegistryError(
            405, "UNSUPPORTED", "This registry is read only: upload the image in the browser or with the REST call."
        )
    granted = _granted(headers)
    if call.kind == "ping":
        await answer_json(send, 200, {}, _VERSION)
        return
    if granted != call.repository:
        raise RegistryError(401, "UNAUTHORIZED", f"This token does not pull from {call.repository}.")
    if call.kind == "tags":
        tags = await in_thread(registry.tags_of, call.repository)
        await answer_json(send, 200, {"name": call.repository, "tags": tags}, _VERSION)
        return
    await _give_blob(call, scope["method"], headers, send)


def _granted(headers: dict[str, str]) -> str:
    """The repository of the pull token; raises RegistryError 401."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise RegistryError(401, "UNAUTHORIZED", "Ask the token endpoint for a token first.")
    repository = pull_repository(token.strip())
    if repository is None:
        raise RegistryError(401, "UNAUTHORIZED", "The pull token is unknown or has expired.")
    return repository


def _challenge(scope: Scope, headers: dict[str, str]) -> str:
    """Where to get a token (distribution-spec, token authentication)."""
    scheme = headers.get("x-forwarded-proto", scope.get("scheme", "http"))
    scheme = scheme if scheme in ("http", "https") else "http"
    host = "".join(char for char in headers.get("host", "localhost") if char not in '"\\')
    challenge = f'Bearer realm="{scheme}://{host}/v2/token",service="{SERVICE}"'
    try:
        repository = registry.parse_path(scope["path"]).repository
    except RegistryError:
        repository = ""
    return f'{challenge},scope="repository:{repository}:pull"' if repository else challenge


async def _give_token(scope: Scope, headers: dict[str, str], send: Send) -> None:
    """`GET /v2/token?scope=repository:<team>/<app>:pull` with an API token as the Basic password."""
    if scope["method"] != "GET":
        raise RegistryError(405, "UNSUPPORTED", "The token endpoint answers GET.")
    actor = await in_thread(_actor_of_basic, headers.get("authorization", ""))
    names = [registry.scope_of(text) for text in query_of(scope).get("scope", [])]
    repository = next((name for name in names if name), "")
    if repository and not await in_thread(registry.may_pull, actor, repository):
        raise RegistryError(403, "DENIED", f"There is no repository {repository} that you may pull from.")
    token = make_pull_token(repository)
    issued = datetime.fromtimestamp(int(time.time()), UTC).isoformat().replace("+00:00", "Z")
    reply = {"token": token, "access_token": token, "expires_in": PULL_TOKEN_S, "issued_at": issued}
    await answer_json(send, 200, reply, _VERSION)


def _actor_of_basic(header: str) -> Actor:
    kind, _, encoded = header.partition(" ")
    try:
        secret = base64.b64decode(encoded, validate=True).decode().partition(":")[2] if kind.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        secret = ""
    if not secret:
        raise RegistryError(401, "UNAUTHORIZED", "Sign in with any user name and an API token as the password.")
    try:
        return actor_of_token(secret, "push")
    except Unauthenticated as error:
        raise RegistryError(401, "UNAUTHORIZED", f"{error.message} {error.hint}") from None


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
    rows = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    if method == "HEAD" or length == 0:
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": rows})
        await send({"type": "http.response.body", "body": b""})
        return
    with await asyncio.to_thread(blob_store().open, found.digest) as file:
        file.seek(start)
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": rows})
        await send_file(send, file, length)
