"""Long bodies between the event loop and threads: a request's as a file, a response's from an iterator."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from runtime.engine.api.call import Call, stream
from runtime.errors import RuntimeFault

log = logging.getLogger("moorage.engine.api")


class Body(io.RawIOBase):
    """A request's body as a file for a thread; each read fetches from the event loop what has arrived."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """io.RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """io.RawIOBase; 0 at the end of the body."""
        if not self._rest:
            data = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            self._rest = memoryview(data)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        return await self._content.readany()


async def flow(call: Call, pieces: Iterator[bytes]) -> web.StreamResponse:
    """Send what a generator gives, which runs in threads. A refusal before its first piece is the caller's.

    One after it breaks the connection, for nothing else can tell the client; the log has the sentence.
    """
    try:
        chunk = await _next(pieces)
        response = await stream(call, "application/x-tar")
        while chunk is not None:
            if chunk:
                await response.write(chunk)
            chunk = await _after_head(call, pieces)
        return response
    finally:
        await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]


async def _next(pieces: Iterator[bytes]) -> bytes | None:
    """The next piece, None at the end; waits for the thread also when it is no longer wanted, for a generator runs once at a time."""
    task = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _after_head(call: Call, pieces: Iterator[bytes]) -> bytes | None:
    try:
        return await _next(pieces)
    except (RuntimeFault, OSError) as fault:
        log.warning("%s %s broke off: %s", call.request.method, call.request.path, fault)
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionError(str(fault)) from fault
