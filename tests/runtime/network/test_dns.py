"""The resolver's codec against dnslib and against noise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from runtime.network import dns

LABELS = st.lists(st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=63), min_size=1, max_size=3)


@given(LABELS, st.sampled_from(["A", "AAAA", "TXT", "MX"]))
def test_a_question_is_read_as_dnslib_writes_it(labels: list[str], kind: str) -> None:
    query = DNSRecord.question(".".join(labels), kind)
    question = dns.parse(query.pack())
    assert question is not None
    assert (question.id, question.name, question.kind) == (
        query.header.id,
        ".".join(labels).lower(),
        getattr(QTYPE, kind),
    )


@given(st.binary(max_size=600))
def test_noise_is_refused_or_read_but_never_raises(packet: bytes) -> None:
    dns.parse(packet)


@given(st.binary(max_size=300))
def test_noise_after_a_good_header_is_refused_or_read_but_never_raises(rest: bytes) -> None:
    dns.parse(DNSRecord.question("a").pack()[:12] + rest)


@given(st.integers(0, 40))
def test_a_query_cut_short_is_refused(length: int) -> None:
    whole = DNSRecord.question("some.longer.name.example.org").pack()
    assert dns.parse(whole[:length]) is None


def test_a_response_is_never_answered() -> None:
    assert dns.parse(DNSRecord.question("a").reply().pack()) is None


def _local(name: str, kind: str = "A") -> DNSRecord | None:
    question = dns.parse(DNSRecord.question(name, kind).pack())
    assert question
    found = dns.answer_locally(question, {"web": ["10.0.0.2", "10.0.0.3"]}.get)
    return DNSRecord.parse(found) if found else None


@pytest.mark.parametrize("name", ["web", "WEB", "web.internal", "web."])
def test_a_known_alias_is_answered_with_all_its_addresses(name: str) -> None:
    answer = _local(name)
    assert answer is not None
    assert {str(record.rdata) for record in answer.rr} == {"10.0.0.2", "10.0.0.3"}
    assert {str(record.rname).lower().removesuffix(".") for record in answer.rr} == {name.lower().removesuffix(".")}


@pytest.mark.parametrize("name", ["db", "db.internal", "a.b.internal", "internal"])
def test_an_unknown_alias_does_not_leave_the_host(name: str) -> None:
    answer = _local(name)
    assert answer is not None
    assert answer.header.rcode == RCODE.NXDOMAIN


def test_a_name_of_the_world_is_not_answered_here() -> None:
    assert _local("web.example.org") is None


def test_resolvers_are_read_as_the_system_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# x\nsearch a b\nnameserver\nnameserver 1.1.1.1\nnameserver 2.2.2.2 x\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n"
    )
    assert dns.resolvers(file) == ["1.1.1.1", "2.2.2.2", "3.3.3.3"]
    assert dns.resolvers(tmp_path / "absent") == []


class Liar(asyncio.DatagramProtocol):
    """A server that first sends answers a spoofer could send, then the real one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        other_question = DNSRecord.question("evil.example.org")
        other_question.header.id = int.from_bytes(data[:2])
        wrong_id = bytes([data[0] ^ 1]) + data[1:]
        for packet in (wrong_id + b"spoofed", other_question.reply().pack(), data + b"real"):
            self._transport.sendto(packet, addr)


async def test_only_the_answer_to_the_question_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Liar, local_addr=("127.0.0.1", 0))
    monkeypatch.setattr(dns, "DNS_PORT", transport.get_extra_info("sockname")[1])
    packet = DNSRecord.question("www.example.org").pack()
    question = dns.parse(packet)
    assert question
    assert await dns.forward(packet, question, ["127.0.0.1"]) == packet + b"real"
    transport.close()
