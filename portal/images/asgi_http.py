"""What the raw ASGI doors of images share: headers in, answers and problems out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from portal.errors import Invalid, PortalError, refusal_of

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]

CHUNK_BYTES = 1 << 20
DISCARD_BYTES = 64 << 20
DISCARD_S = 20.0


class ClientGone(Exception):
    """The client closed the connection in the middle of its body."""


class Incoming:
    """A request's `receive` that remembers whether the body has ended: asking once more would wait for the client to leave."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def __call__(self) -> dict[str, Any]:
        """The next message."""
        message = await self._receive()
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def headers_of(scope: Scope) -> dict[str, str]:
    """Request headers by lower-case name; of a repeated one the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def query_of(scope: Scope) -> dict[str, list[str]]:
    """The query string, decoded."""
    return parse_qs(scope["query_string"].decode("latin-1"))


async def body(receive: Incoming) -> AsyncIterator[bytes]:
    """The request's body as it comes; raises ClientGone when it ends before its end."""
    while not receive.ended:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if chunk := message.get("body", b""):
            yield chunk


async def json_body(receive: Incoming, most_bytes: int) -> Any:
    """The body as JSON; raises PortalError (413) above `most_bytes`, Invalid when it is none."""
    content = b""
    async for chunk in body(receive):
        content += chunk
        if len(content) > most_bytes:
            raise PortalError(f"The JSON body is larger than {most_bytes >> 10} kB.", code="too_large", status=413)
    try:
        return json.loads(content)
    except ValueError:
        raise Invalid("The body is not JSON.") from None


async def answer(send: Send, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
    """A whole response; adds Content-Length."""
    fields = {"content-length": str(len(content)), **(headers or {})}
    rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": content})


async def answer_json(send: Send, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    """JSON, never cached."""
    fields = {"content-type": "application/json", "cache-control": "no-store", **(headers or {})}
    await answer(send, status, json.dumps(value).encode(), fields)


async def refuse(send: Send, receive: Incoming, error: PortalError, headers: Mapping[str, str] | None = None) -> None:
    """problem+json at once, while the rest of the body is read and thrown away up to a limit.

    Closing instead would give urllib and `curl -H Expect:` a connection reset in place of the answer.
    """
    content = json.dumps(error.problem()).encode()
    fields = {"content-type": "application/problem+json", "content-length": str(len(content)), **(headers or {})}
    if error.status == 401:
        fields["www-authenticate"] = 'Bearer realm="moorage"'
    rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": rows})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    await discard(receive)
    await send({"type": "http.response.body", "body": b""})


async def refuse_or_raise(
    send: Send, receive: Incoming, error: Exception, headers: Mapping[str, str] | None = None
) -> None:
    """A full disk as problem+json; every other error that is no refusal is the server's to log."""
    refusal = refusal_of(error)
    if refusal is None:
        raise error
    await refuse(send, receive, refusal, headers)


async def discard(receive: Incoming) -> None:
    """Read what is left of a body, up to DISCARD_BYTES and DISCARD_S."""
    left = DISCARD_BYTES
    try:
        async with asyncio.timeout(DISCARD_S):
            async for chunk in body(receive):
                left -= len(chunk)
                if left < 0:
                    return
    except (ClientGone, TimeoutError):
        return


async def send_file(send: Send, file: BinaryIO, length: int) -> None:
    """`length` bytes of an open file as the body, read in threads; the caller has sent the start."""
    while length > 0:
        chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, length))
        if not chunk:
            return
        length -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": length > 0})
