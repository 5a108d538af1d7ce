"""Ports of the host that lead to containers."""

from __future__ import annotations

import socket

import pytest

from runtime.network.bridge import Networks
from runtime.network.model import NetworkFault, NetworkInUse, PortBinding
from tests.runtime.root.network.conftest import Start
from tests.runtime.root.network.inside import HOST, World, listen_in, reaches, socket_in

pytestmark = pytest.mark.root


async def test_a_published_port_answers_on_loopback_on_the_host_and_to_the_world(
    networks: Networks, start: Start, outside: World
) -> None:
    sandbox, endpoint = await start()
    published = await networks.publish(endpoint, [PortBinding(container_port=80)])
    port = published.ports[0].host_port
    with listen_in(sandbox.path, 80) as listener:
        for path, address in ((HOST, "127.0.0.1"), (HOST, outside.host_address), (outside.path, outside.host_address)):
            assert reaches(path, address, port), address
            listener.accept()[0].close()


async def test_a_port_published_on_loopback_is_not_open_to_the_world(
    networks: Networks, start: Start, outside: World
) -> None:
    sandbox, endpoint = await start()
    binding = PortBinding(container_port=80, host_address="127.0.0.1")
    port = (await networks.publish(endpoint, [binding])).ports[0].host_port
    with listen_in(sandbox.path, 80):
        assert reaches(HOST, "127.0.0.1", port)
        assert not reaches(outside.path, outside.host_address, port)


async def test_a_container_reaches_no_port_that_another_team_published(networks: Networks, start: Start) -> None:
    await networks.create("team-b")
    (victim, endpoint), (stranger, _) = await start("team-b"), await start()
    port = (await networks.publish(endpoint, [PortBinding(container_port=80)])).ports[0].host_port
    with listen_in(victim.path, 80):
        assert reaches(HOST, endpoint.gateway, port)
        assert not reaches(stranger.path, endpoint.gateway, port)


async def test_datagrams_go_both_ways_through_a_published_port(networks: Networks, start: Start) -> None:
    sandbox, endpoint = await start()
    binding = PortBinding(container_port=5353, protocol="udp")
    port = (await networks.publish(endpoint, [binding])).ports[0].host_port
    with socket_in(sandbox.path, socket.SOCK_DGRAM) as server, socket_in(HOST, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 5353))
        client.sendto(b"question", ("127.0.0.1", port))
        question, sender = server.recvfrom(100)
        server.sendto(question + b" answered", sender)
        assert client.recvfrom(100) == (b"question answered", ("127.0.0.1", port))


async def test_a_port_in_use_is_refused_with_its_number(networks: Networks, start: Start) -> None:
    _, endpoint = await start()
    with listen_in(HOST, 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(NetworkInUse, match=f":{port}/tcp is in use"):
            await networks.publish(endpoint, [PortBinding(container_port=80, host_port=port)])


async def test_two_containers_cannot_publish_one_port(networks: Networks, start: Start) -> None:
    (_, first), (_, second) = await start(), await start()
    port = (await networks.publish(first, [PortBinding(container_port=80)])).ports[0].host_port
    with pytest.raises(NetworkInUse):
        await networks.publish(second, [PortBinding(container_port=80, host_port=port)])


async def test_a_freed_port_leads_to_the_next_container_at_once(networks: Networks, start: Start) -> None:
    (old, first), (new, second) = await start(), await start()
    port = (await networks.publish(first, [PortBinding(container_port=80)])).ports[0].host_port
    await networks.remove_sandbox(old)
    await networks.publish(second, [PortBinding(container_port=80, host_port=port)])
    with listen_in(new.path, 80):
        assert reaches(HOST, "127.0.0.1", port)


async def test_an_unpublished_port_leads_nowhere(networks: Networks, start: Start) -> None:
    sandbox, endpoint = await start()
    published = await networks.publish(endpoint, [PortBinding(container_port=80)])
    assert (await networks.unpublish(published)).ports == ()
    with listen_in(sandbox.path, 80):
        assert not reaches(HOST, "127.0.0.1", published.ports[0].host_port)


@pytest.mark.parametrize(
    "binding",
    [
        PortBinding(container_port=0),
        PortBinding(container_port=80, host_port=65536),
        PortBinding(container_port=80, host_address="198.51.100.200"),
        PortBinding(container_port=80, host_address="::1"),
    ],
)
async def test_what_cannot_be_published_is_refused(networks: Networks, start: Start, binding: PortBinding) -> None:
    _, endpoint = await start()
    with pytest.raises(NetworkFault):
        await networks.publish(endpoint, [binding])
