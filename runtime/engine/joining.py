"""A container's place in the network: its sandbox, its address and its published ports, the same ones again where they are free."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.parking import Berth, Parking
from runtime.engine.records import Record, Seat
from runtime.engine.request import PortBinding
from runtime.network.model import DEFAULT_NETWORK, Endpoint, NetworkInUse, NoSuchNetwork, Sandbox
from runtime.network.model import PortBinding as Published


class Joining:
    """Gives containers sandboxes and endpoints, and takes them back."""

    def __init__(self, core: Core, parking: Parking) -> None:
        self._core = core
        self._parking = parking

    async def sandbox(self, container: Container, berth: Berth | None) -> Sandbox | None:
        """The container's sandbox; what a restart left standing is used again. None on the host's network."""
        if container.record.host.network_mode == "host":
            return None
        return self._core.networks.sandbox(container.id) or await self._parking.sandbox(container.id, berth)

    async def connect(self, container: Container, sandbox: Sandbox | None) -> Endpoint | None:
        """The container's endpoint, with the address it has where it was left standing. None without a network."""
        core, record = self._core, container.record
        if sandbox is None or record.host.network_mode == "none":
            return None
        kept = core.networks.endpoints(record.id)
        if kept:
            return kept[0]
        resources, seat = record.host.resources, record.life.seat
        endpoint = await core.networks.connect(
            sandbox,
            network_of(record),
            address=record.endpoint.ip or None,
            preferred=seat.address,
            aliases=(record.name, record.id[:12], *record.endpoint.aliases),
            rate_in_bps=resources.rate_in,
            rate_out_bps=resources.rate_out,
        )
        endpoint = await self._publish(endpoint, bindings(record), seat)
        record.life.seat = Seat(address=endpoint.address, ports=tuple(_asked(p) for p in endpoint.ports))
        return endpoint

    async def _publish(self, endpoint: Endpoint, wanted: list[Published], seat: Seat) -> Endpoint:
        """Lead ports to the endpoint: where any would do those it had before, unless somebody else has one of them now."""
        if not wanted:
            return endpoint
        publish = self._core.networks.publish
        again = [_before(binding, seat) for binding in wanted]
        if again != wanted:
            with suppress(NetworkInUse):
                return await publish(endpoint, again)
        return await publish(endpoint, wanted)

    def reserve(self, container: Container) -> None:
        """Keep the address it had for it until it is started again: others that are created meanwhile get other ones."""
        record = container.record
        address = record.endpoint.ip or record.life.seat.address
        if address and record.host.network_mode not in ("host", "none"):
            with suppress(NoSuchNetwork, ValueError):  # the start says so
                self._core.networks.reserve(record.id, network_of(record), address)

    async def leave(self, container: Container) -> None:
        """Give the sandbox back, with addresses, names and ports."""
        self._core.networks.release(container.id)
        sandbox = self._core.networks.sandbox(container.id)
        if sandbox:
            await self._core.networks.remove_sandbox(sandbox)


def network_of(record: Record) -> str:
    """The name of the network a container joins."""
    mode = record.host.network_mode
    return DEFAULT_NETWORK if mode == "default" else mode


def bindings(record: Record) -> list[Published]:
    """What is to be published: what was asked for, and with `publish_all` what the image exposes."""
    found = [
        Published(
            container_port=p.port,
            host_port=p.host_port,
            host_address=p.host_ip or "0.0.0.0",
            protocol="udp" if p.protocol == "udp" else "tcp",
        )
        for p in record.host.ports
    ]
    taken = {(b.container_port, b.protocol) for b in found}
    for text in record.process.exposed_ports if record.host.publish_all else ():
        port, _, protocol = text.partition("/")
        if (int(port), protocol) not in taken:
            found.append(Published(container_port=int(port), protocol="udp" if protocol == "udp" else "tcp"))
    return found


def host_resolv() -> str:
    """The host's own resolver configuration, for containers on its network."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8") as file:  # noqa: PTH123
            return file.read(65_536)
    except OSError:
        return ""


def _asked(published: Published) -> PortBinding:
    return PortBinding(
        port=published.container_port,
        protocol=published.protocol,
        host_ip=published.host_address,
        host_port=published.host_port,
    )


def _before(binding: Published, seat: Seat) -> Published:
    """A binding to any port, as a binding to the port it was the last time."""
    if binding.host_port:
        return binding
    place = binding.container_port, binding.protocol, binding.host_address
    for port in seat.ports:
        if (port.port, port.protocol, port.host_ip) == place:
            return replace(binding, host_port=port.host_port)
    return binding
