"""Who reaches whom: default-deny between networks and towards the host, pinned source addresses."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from runtime.network.bridge import Networks
from runtime.network.links import mac_bytes
from runtime.network.model import Endpoint, Sandbox
from tests.runtime.root.network.conftest import Start
from tests.runtime.root.network.inside import HOST, World, inside, listen_in, reaches, socket_in

pytestmark = pytest.mark.root

ETH_P_ALL = 3
CONNECTIONS = Path("/proc/sys/net/netfilter/nf_conntrack_count")
METADATA = "169.254.169.254"


async def test_instances_of_one_network_reach_each_other(start: Start) -> None:
    (first, server), (second, client) = await start(), await start()
    with listen_in(first.path, 80) as listener:
        assert reaches(second.path, server.address, 80)
        assert listener.accept()[1][0] == client.address


async def test_two_networks_do_not_reach_each_other(networks: Networks, start: Start) -> None:
    await networks.create("team-b")
    (victim, server), (stranger, _), (friend, _) = await start("team-b"), await start(), await start("team-b")
    with listen_in(victim.path, 80):
        assert reaches(friend.path, server.address, 80)
        assert not reaches(stranger.path, server.address, 80)


async def test_a_refusal_is_told_at_once_instead_of_timing_out(networks: Networks, start: Start) -> None:
    await networks.create("team-b")
    (_, server), (stranger, _) = await start("team-b"), await start()
    with socket_in(stranger.path) as sock, pytest.raises(OSError) as caught:
        sock.connect((server.address, 80))
    assert caught.value.errno == errno.EHOSTUNREACH


async def test_services_of_the_host_are_not_reached_at_any_of_its_addresses(start: Start, outside: World) -> None:
    (sandbox, endpoint), host_port = await start(), 18099
    with listen_in(HOST, host_port):
        assert reaches(HOST, endpoint.gateway, host_port)
        for address in (endpoint.gateway, outside.host_address):
            assert not reaches(sandbox.path, address, host_port)


async def test_the_host_opens_connections_to_containers(start: Start) -> None:
    sandbox, endpoint = await start()
    with listen_in(sandbox.path, 80):
        assert reaches(HOST, endpoint.address, 80)


async def test_the_world_sees_the_host_and_not_the_container(start: Start, outside: World) -> None:
    sandbox, _ = await start()
    with listen_in(outside.path, 80) as listener:
        assert reaches(sandbox.path, outside.address, 80)
        assert listener.accept()[1][0] == outside.host_address


async def test_the_world_does_not_reach_a_container_by_its_address(start: Start, outside: World) -> None:
    sandbox, endpoint = await start()
    inside(outside.path, lambda: _ip("route", "add", endpoint.address, "via", outside.host_address))
    with listen_in(sandbox.path, 80):
        assert reaches(HOST, endpoint.address, 80)
        assert not reaches(outside.path, endpoint.address, 80)


async def test_an_internal_network_has_no_way_out(networks: Networks, start: Start, outside: World) -> None:
    await networks.create("closed", internal=True)
    (open_one, _), (closed_one, _) = await start(), await start("closed")
    with listen_in(outside.path, 80):
        assert reaches(open_one.path, outside.address, 80)
        assert not reaches(closed_one.path, outside.address, 80)


async def test_the_metadata_service_of_a_cloud_is_refused(start: Start, outside: World) -> None:
    sandbox, _ = await start()
    inside(outside.path, lambda: _ip("address", "add", METADATA, "dev", "w0"))
    _ip("route", "add", METADATA, "via", outside.address)
    with listen_in(outside.path, 80):
        assert reaches(HOST, METADATA, 80)
        assert not reaches(sandbox.path, METADATA, 80)


async def test_one_container_cannot_fill_the_hosts_table_of_connections(start: Start, outside: World) -> None:
    (sprayer, _), (neighbour, _) = await start(), await start()
    before = int(CONNECTIONS.read_text())
    with socket_in(sprayer.path, socket.SOCK_DGRAM) as sock:
        for port in range(10_000, 50_000):
            sock.sendto(b"x", (outside.address, port))
    assert 1_000 < int(CONNECTIONS.read_text()) - before < 12_000
    with listen_in(outside.path, 80):
        assert reaches(neighbour.path, outside.address, 80)


@pytest.mark.parametrize("forged", ["nothing", "address", "mac", "arp"])
async def test_only_packets_with_the_containers_own_addresses_pass(start: Start, forged: str) -> None:
    (attacker, mine), (victim, target), (_, other) = await start(), await start(), await start()
    mac = other.mac if forged == "mac" else mine.mac
    address = other.address if forged in ("address", "arp") else mine.address
    frame = _arp(mine.mac, address, target) if forged == "arp" else _udp(mac, address, target)
    with _packet_socket(victim) as ear, _packet_socket(attacker) as mouth:
        mouth.send(frame)
        arrived = _hears(ear, frame)
    assert arrived == (forged == "nothing")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _packet_socket(sandbox: Sandbox) -> socket.socket:
    sock = inside(sandbox.path, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
    sock.bind(("eth0", ETH_P_ALL))
    sock.settimeout(0.3)
    return sock


def _hears(ear: socket.socket, frame: bytes) -> bool:
    try:
        while True:
            if ear.recv(2048)[: len(frame)] == frame:
                return True
    except TimeoutError:
        return False


def _udp(mac: str, source: str, target: Endpoint) -> bytes:
    """An Ethernet frame with an empty UDP datagram (RFC 791, 768; the checksum of IPv4 is right, UDP's is absent)."""
    datagram = struct.pack("!HHHH", 4000, 4000, 8, 0)
    pair = IPv4Address(source).packed + IPv4Address(target.address).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0) + pair
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return mac_bytes(target.mac) + mac_bytes(mac) + struct.pack("!H", 0x0800) + header + datagram


def _arp(mac: str, claimed: str, target: Endpoint) -> bytes:
    """An ARP reply that claims an address (RFC 826)."""
    head = mac_bytes(target.mac) + mac_bytes(mac) + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2)
    claim = mac_bytes(mac) + IPv4Address(claimed).packed
    return head + claim + mac_bytes(target.mac) + IPv4Address(target.address).packed
