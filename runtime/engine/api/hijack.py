"""Taking a connection over from aiohttp after `101 UPGRADED`: attach and exec speak raw bytes both ways.

aiohttp's own protocol closes when the client closes its half, which the docker command line does at once, and all output would
be lost with exit status 0. So the transport gets a protocol of ours, whose `eof_received` keeps the other half open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from runtime.engine.detachkeys import Keys

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
HIGH = 256 << 10
SPOOL = 16 << 20


class RawStream(asyncio.Protocol):
    """A connection as a stream of bytes. The client's half may end long before ours."""

    def __init__(self, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._before = before
        self._received = bytearray(getattr(before, "_message_tail", b""))
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = False
        self._lost = False
        if self._received:
            self._arrived.set()

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        self._received += data
        self._arrived.set()
        if len(self._received) > HIGH:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """asyncio.Protocol; True keeps our half open."""
        self._ended = True
        self._arrived.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.Protocol; the handler is told through aiohttp's own protocol, which cancels it."""
        self._ended = self._lost = True
        self._arrived.set()
        self._writable.set()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio.Protocol."""
        self._writable.set()

    async def read(self) -> bytes:
        """What the client sent; b"" when its half has ended."""
        while not self._received:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._received)
        self._received.clear()
        if not self._ended:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client is slow; raises ConnectionResetError when it has gone."""
        await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the kernel has taken what was written."""
        self._transport.set_write_buffer_limits(0)
        await self._writable.wait()

    def finish(self) -> None:
        """End our half; the connection closes when all is sent."""
        with suppress(OSError, RuntimeError):
            self._transport.close()


class Hijacked(web.StreamResponse):
    """What a handler returns to aiohttp after it has taken the connection: nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing to prepare."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to end."""

    @property
    def keep_alive(self) -> bool:
        """The connection ends with the stream."""
        return False


def hijack(request: web.BaseRequest, content_type: str = RAW) -> RawStream:
    """Answer 101 (200 where the client asked for no upgrade) and take the connection; raises ConnectionResetError."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    before = transport.get_protocol()
    stream = RawStream(transport, before)
    if "upgrade" in request.headers.get("Connection", "").lower():
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
    transport.set_protocol(stream)
    transport.write(head.encode())
    with suppress(RuntimeError):
        transport.resume_reading()
    return stream


async def relay(
    client: RawStream,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    stdin: bool,
    keys: Keys | None = None,
) -> bool:
    """Carry a monitor's frames to the client and the client's bytes to the monitor, until the monitor closes.

    With `keys`, also until these were typed: then True, and the program goes on."""
    loop = asyncio.get_running_loop()
    feeder = loop.create_task(_feed(client, writer, keys)) if stdin else None
    spool = Spool(client)
    carrier = loop.create_task(_carry(reader, spool))
    try:
        if feeder and keys:
            await asyncio.wait((feeder, carrier), return_when=asyncio.FIRST_COMPLETED)
            if keys.seen:
                return True
        await carrier
    except ConnectionError:
        pass
    finally:
        spool.close()
        for task in (feeder, carrier):
            if task:
                task.cancel()
        writer.close()
    return False


async def _carry(reader: asyncio.StreamReader, spool: Spool) -> None:
    while data := await reader.read(HIGH):
        await spool.put(data)
    await spool.finish()


class Spool:
    """What was read ahead of a slow client, up to SPOOL bytes: a monitor drops what its clients leave unread too long."""

    def __init__(self, client: RawStream) -> None:
        self._client = client
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._changed = asyncio.Event()
        self._sender = asyncio.get_running_loop().create_task(self._send())
        self._sender.add_done_callback(lambda _: self._changed.set())

    async def _send(self) -> None:
        while True:
            while not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            data = self._waiting.popleft()
            if not data:
                return
            await self._client.write(data)
            self._held -= len(data)
            self._changed.set()

    async def put(self, data: bytes) -> None:
        """Take data, waiting while SPOOL bytes are held; raises ConnectionResetError when the client has gone."""
        while self._held > SPOOL and not self._sender.done():
            self._changed.clear()
            await self._changed.wait()
        if self._sender.done():
            raise ConnectionResetError("the client has gone")
        self._waiting.append(data)
        self._held += len(data)
        self._changed.set()

    async def finish(self) -> None:
        """Wait until the client has everything."""
        self._waiting.append(b"")
        self._changed.set()
        await self._sender

    def close(self) -> None:
        """Give up."""
        self._sender.cancel()


async def _feed(client: RawStream, writer: asyncio.StreamWriter, keys: Keys | None) -> None:
    with suppress(ConnectionError):
        while data := await client.read():
            writer.write(keys.take(data) if keys else data)
            await writer.drain()
            if keys and keys.seen:
                return
        writer.write_eof()
