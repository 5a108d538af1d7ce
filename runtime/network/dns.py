"""Names inside a network: a small resolver on each bridge's address, in the engine's event loop.

It answers `<alias>` and `<alias>.internal` itself and hands everything else to the host's resolvers. Only the header
and the single question are ever decoded (RFC 1035 section 4.1), so a hostile packet meets some twenty lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

log = logging.getLogger(__name__)

SUFFIX = "internal"
TYPE_A, TYPE_ANY, CLASS_IN = 1, 255, 1
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 2, 3, 4
FLAG_RESPONSE, FLAG_AUTHORITATIVE, FLAG_RECURSION_WANTED, FLAG_RECURSION = 0x8000, 0x0400, 0x0100, 0x0080
OPCODE_MASK = 0x7800
TTL_S = 5
MAX_UDP_BYTES = 4096
TIMEOUT_S = 3.0
MAX_PENDING, MAX_PENDING_PER_CLIENT, MAX_STREAMS = 512, 64, 32
DNS_PORT = 53

_HEADER = struct.Struct("!HHHHHH")

# An alias in lower case → its addresses; None: not a name of this network.
type Lookup = Callable[[str], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query. `raw` is its bytes, `name` in lower case without the last dot."""

    id: int
    flags: int
    name: str
    kind: int
    raw: bytes


def parse(packet: bytes) -> Question | None:
    """The question of a query; None for what deserves no answer (a response, two questions, a broken name)."""
    if not 17 <= len(packet) <= MAX_UDP_BYTES:
        return None
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
    if flags & FLAG_RESPONSE or questions != 1 or answers:
        return None
    labels, at = [], _HEADER.size
    while (length := packet[at]) != 0:
        if length > 63 or at + 1 + length >= len(packet) or at > 255 + _HEADER.size:
            return None
        labels.append(packet[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    if at + 5 > len(packet):
        return None
    kind, _class = struct.unpack_from("!HH", packet, at + 1)
    return Question(number, flags, ".".join(labels), kind, packet[_HEADER.size : at + 5])


def answer(question: Question, code: int, addresses: Sequence[str] = ()) -> bytes:
    """A response with A records for the question's name."""
    flags = FLAG_RESPONSE | FLAG_RECURSION | (question.flags & (OPCODE_MASK | FLAG_RECURSION_WANTED)) | code
    if addresses or code == NXDOMAIN:
        flags |= FLAG_AUTHORITATIVE
    head = _HEADER.pack(question.id, flags, 1, len(addresses), 0, 0)
    pointer = 0xC000 | _HEADER.size
    records = [
        struct.pack("!HHHIH", pointer, TYPE_A, CLASS_IN, TTL_S, 4) + IPv4Address(address).packed
        for address in addresses
    ]
    return head + question.raw + b"".join(records)


def answer_locally(question: Question, lookup: Lookup) -> bytes | None:
    """The response this network can give by itself; None if the world must be asked."""
    if question.flags & OPCODE_MASK:
        return answer(question, NOTIMP)
    first, _, rest = question.name.rpartition(".")
    alias = first if rest == SUFFIX else question.name
    known = lookup(alias) if alias else None
    if known:
        wanted = list(known) if question.kind in (TYPE_A, TYPE_ANY) else []
        random.shuffle(wanted)
        return answer(question, NOERROR, wanted[:24])
    if rest == SUFFIX or (question.name and "." not in question.name):
        return answer(question, NXDOMAIN)
    return None


def resolvers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The host's name servers, at most three, as resolv.conf(5) lists them."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"][:3]


class _Ask(asyncio.DatagramProtocol):
    """One question to one upstream, from a port of its own, under an id of its own."""

    def __init__(self, packet: bytes, question: Question) -> None:
        self._id = secrets.token_bytes(2)
        self._packet, self._question = packet, question
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        transport.sendto(self._id + self._packet[2:])

    def datagram_received(self, data: bytes, addr: object) -> None:
        raw = self._question.raw
        if data[:2] == self._id and data[_HEADER.size : _HEADER.size + len(raw)].lower() == raw.lower():
            self._finish(self._packet[:2] + data[2:])

    def error_received(self, exc: Exception) -> None:
        self._finish(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(b"")

    def _finish(self, data: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(data)


async def forward(packet: bytes, question: Question, upstreams: Sequence[str]) -> bytes:
    """The first upstream's answer, else SERVFAIL. Takes at most `TIMEOUT_S` for each."""
    loop = asyncio.get_running_loop()
    for upstream in upstreams:
        try:
            transport, ask = await loop.create_datagram_endpoint(
                lambda: _Ask(packet, question), remote_addr=(upstream, DNS_PORT)
            )
        except OSError:
            continue
        try:
            if found := await asyncio.wait_for(ask.answer, TIMEOUT_S):
                return found
        except TimeoutError:
            continue
        finally:
            transport.close()
    return answer(question, SERVFAIL)


async def forward_stream(packet: bytes, question: Question, upstreams: Sequence[str]) -> bytes:
    """As `forward`, over TCP, for answers that do not fit a datagram."""
    for upstream in upstreams:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(upstream, DNS_PORT)
                with contextlib.closing(writer):
                    writer.write(len(packet).to_bytes(2) + packet)
                    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        except (OSError, EOFError, TimeoutError):
            continue
    return answer(question, SERVFAIL)


class Resolver(asyncio.DatagramProtocol):
    """DNS of one network. What a client may have under way is bounded; more is dropped, as a full queue would."""

    def __init__(self, subnet: IPv4Network, lookup: Lookup) -> None:
        self._subnet, self._lookup = subnet, lookup
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._pending: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0

    async def start(self, address: str, port: int = DNS_PORT) -> None:
        """Listen on the bridge's address, both UDP and TCP. Raises OSError when another server holds the port."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        self._server = await asyncio.start_server(self._stream, address, port, backlog=64)

    def close(self) -> None:
        """Stop listening and forget what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = parse(data) if IPv4Address(addr[0]) in self._subnet else None
        if question is None or self._transport is None:
            return
        if (own := answer_locally(question, self._lookup)) is not None:
            self._transport.sendto(own, addr)
            return
        if self._pending.total() >= MAX_PENDING or self._pending[addr[0]] >= MAX_PENDING_PER_CLIENT:
            return
        self._pending[addr[0]] += 1
        task = asyncio.ensure_future(self._relay(data, question, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, data: bytes, question: Question, addr: tuple[str, int]) -> None:
        try:
            found = await forward(data, question, resolvers())
            if self._transport and not self._transport.is_closing():
                self._transport.sendto(found, addr)
        finally:
            self._pending[addr[0]] -= 1
            if not self._pending[addr[0]]:
                del self._pending[addr[0]]

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams += 1
        try:
            with contextlib.closing(writer):
                peer = IPv4Address(writer.get_extra_info("peername")[0])
                if self._streams > MAX_STREAMS or peer not in self._subnet:
                    return
                async with asyncio.timeout(4 * TIMEOUT_S):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                    if (question := parse(data)) is None:
                        return
                    found = answer_locally(question, self._lookup) or await forward_stream(data, question, resolvers())
                    writer.write(len(found).to_bytes(2) + found)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            log.debug("a DNS stream ended early")
        finally:
            self._streams -= 1
