"""DNS inside a network, asked from inside a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from runtime.network.bridge import Networks
from runtime.network.model import Endpoint, Sandbox
from tests.runtime.root.network.conftest import Start, in_thread
from tests.runtime.root.network.inside import socket_in

pytestmark = [pytest.mark.root]


async def ask(sandbox: Sandbox, endpoint: Endpoint, name: str, kind: str = "A") -> DNSRecord:
    """The answer a container gets to one question."""
    query = DNSRecord.question(name, kind)

    def exchange() -> DNSRecord:
        with socket_in(sandbox.path, socket.SOCK_DGRAM) as sock:
            sock.sendto(query.pack(), (endpoint.gateway, 53))
            return DNSRecord.parse(sock.recv(4096))

    answer = await in_thread(exchange)
    assert answer.header.id == query.header.id
    return answer


def addresses(answer: DNSRecord) -> set[str]:
    """Addresses of an answer."""
    return {str(record.rdata) for record in answer.rr}


class Upstream(asyncio.DatagramProtocol):
    """A name server that knows one address for everything."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        answer = query.reply()
        answer.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("192.0.2.80"), ttl=60))
        self._transport.sendto(answer.pack(), addr)


@pytest_asyncio.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The host's resolver for this test; what it was asked."""
    monkeypatch.setattr("runtime.network.dns.resolvers", lambda: ["127.99.99.54", "127.99.99.53"])
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(Upstream, local_addr=("127.99.99.53", 53))
    yield server.asked
    transport.close()


@pytest.mark.parametrize("name", ["hello", "hello.internal", "HeLLo.INTERNAL", "0123456789ab"])
async def test_an_instance_is_found_by_each_of_its_names(start: Start, name: str) -> None:
    (client, mine), (_, server) = await start(), await start(aliases=("hello", "0123456789ab"))
    assert addresses(await ask(client, mine, name)) == {server.address}


async def test_all_instances_of_an_app_are_named_together(networks: Networks, start: Start) -> None:
    (client, mine), (gone, one), (_, two) = await start(), await start(aliases=("web",)), await start(aliases=("web",))
    assert addresses(await ask(client, mine, "web.internal")) == {one.address, two.address}
    await networks.remove_sandbox(gone)
    assert addresses(await ask(client, mine, "web.internal")) == {two.address}


async def test_another_teams_names_are_unknown(networks: Networks, start: Start) -> None:
    await networks.create("team-b")
    (client, mine), _ = await start(), await start("team-b", aliases=("secret",))
    assert (await ask(client, mine, "secret.internal")).header.rcode == RCODE.NXDOMAIN


async def test_a_known_name_has_no_ipv6_address_and_says_so_without_an_error(start: Start) -> None:
    client, mine = await start(aliases=("me",))
    answer = await ask(client, mine, "me", "AAAA")
    assert (answer.header.rcode, addresses(answer)) == (RCODE.NOERROR, set())


async def test_other_names_are_asked_of_the_hosts_resolvers(start: Start, upstream: list[str]) -> None:
    client, mine = await start()
    assert addresses(await ask(client, mine, "www.example.com")) == {"192.0.2.80"}
    assert upstream == ["www.example.com."]


async def test_without_a_resolver_the_answer_is_a_failure_and_not_silence(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.network.dns.resolvers", list)
    client, mine = await start()
    assert (await ask(client, mine, "www.example.com")).header.rcode == RCODE.SERVFAIL


async def test_names_are_answered_over_tcp_too(start: Start) -> None:
    client, mine = await start(aliases=("me",))
    query = DNSRecord.question("me").pack()

    def exchange() -> bytes:
        with socket_in(client.path) as sock:
            sock.connect((mine.gateway, 53))
            sock.sendall(len(query).to_bytes(2) + query)
            return sock.makefile("rb").read()

    assert addresses(DNSRecord.parse((await in_thread(exchange))[2:])) == {mine.address}


async def test_hostile_packets_get_no_answer_and_break_nothing(start: Start) -> None:
    client, mine = await start(aliases=("me",))
    good = DNSRecord.question("me").pack()
    hostile = [b"", b"\0" * 11, good[:-1], good[:12] + b"\xc0\x0c\0\1\0\1", good[:12] + b"\x3f" * 300, b"\xff" * 4096]
    with socket_in(client.path, socket.SOCK_DGRAM) as sock:
        for packet in hostile:
            sock.sendto(packet, (mine.gateway, 53))
        assert addresses(await ask(client, mine, "me")) == {mine.address}
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            await in_thread(sock.recv, 4096)


async def test_a_flood_of_questions_reaches_the_resolver_only_as_a_trickle(start: Start) -> None:
    (flooder, mine), (neighbour, theirs) = await start(aliases=("me",)), await start()
    query = DNSRecord.question("me").pack()

    def flood() -> int:
        with socket_in(flooder.path, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.connect((mine.gateway, 53))
            for _ in range(30_000):
                sock.send(query)
            sock.settimeout(0.3)
            answered = 0
            with contextlib.suppress(TimeoutError):
                while sock.recv(4096):
                    answered += 1
            return answered

    assert 100 < await in_thread(flood) < 2_000  # the burst is 1,000; a busy machine answers fewer in time
    assert addresses(await ask(neighbour, theirs, "me")) == {mine.address}
