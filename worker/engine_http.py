"""The few engine calls of the agent, and the event stream, by asyncio and the standard library (the SDK costs 19 MB)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from worker.errors import EngineFault

TIMEOUT_S = 10.0
LINE_BYTES = 1 << 20


class EngineHttp:
    """HTTP/1.1 on the engine's socket; a connection for each call."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def json(self, path: str) -> Any:
        """`GET path`, decoded; raises EngineFault."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._get(path) as body:
                return json.loads(b"".join([part async for part in body]))
        except TimeoutError as error:
            raise EngineFault(f"The engine did not answer GET {path} within {TIMEOUT_S:g} s.") from error
        except ValueError as error:
            raise EngineFault(f"The engine's answer to GET {path} is not JSON.") from error

    async def events(self, **filters: list[str]) -> AsyncIterator[dict[str, Any]]:
        """The event stream from now on, until the engine ends it or goes away (then EngineFault)."""
        rest = b""
        async with self._get(f"/events?filters={quote(json.dumps(filters))}") as body:
            async for part in body:
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line:
                        yield json.loads(line)

    @asynccontextmanager
    async def _get(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_BYTES)
        except OSError as error:
            raise EngineFault(
                f"The engine does not answer on {self._socket}: {error.strerror}.", "Is it running?"
            ) from error
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n".encode())
            status, headers = await _head(reader)
            if status != 200:
                raise EngineFault(f"The engine answered GET {path} with {status}.")
            chunked = headers.get("transfer-encoding") == "chunked"
            yield _chunks(reader) if chunked else _plain(reader, int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise EngineFault(f"The engine went away during GET {path}.") from error
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _plain(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    yield await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
