"""What is done in the kernel for networks and endpoints: synchronous, one thread at a time, undone where it fails."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from runtime.network import links, namespaces, shaping
from runtime.network.elements import Element, Elements
from runtime.network.firewall import Names, Pin, Port
from runtime.network.model import Endpoint, Network, PortBinding, Queue
from runtime.network.namespaces import Namespace
from runtime.network.netlink import NetlinkError, Socket

log = logging.getLogger(__name__)

DEFAULT_MTU = 1500
INNER_INDEX = 2  # the first link of a fresh namespace after `lo`
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
GONE = (errno.ENODEV,)
THERE = (errno.EEXIST,)


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair by its outer end's name and index and its inner end's index."""

    name: str
    index: int
    inner_index: int


@dataclass(slots=True)
class Parked:
    """A sandbox without a container, held by file descriptors alone: it dies with the process that made it."""

    namespace: Namespace
    veth: Veth | None = None


class Wiring:
    """One engine's hands in the kernel. Lives in the network namespace it was made in."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._host = Socket()
        self._counting = Socket()
        self._elements = Elements()
        self._next = 1 + max((_number(link.name, names.veth) for link in self.links()), default=-1)

    def close(self) -> None:
        """Close the sockets."""
        self._host.close()
        self._counting.close()
        self._elements.close()

    def links(self) -> list[links.Link]:
        """All links of the host."""
        return links.list_links(self._host)

    def foreign_routes(self) -> list[tuple[IPv4Network, str]]:
        """Routes of the host that lead elsewhere than to our own bridges, as (destination, link)."""
        names = {link.index: link.name for link in self.links()}
        routes = [(destination, names.get(index, "?")) for destination, index in links.list_routes(self._host)]
        return [(destination, name) for destination, name in routes if not name.startswith(self.names.bridge)]

    def host_mtu(self) -> int:
        """The MTU of the link with the default route, so that packets leave unfragmented; at most 1500."""
        sizes = {link.index: link.mtu for link in self.links()}
        ways = [index for destination, index in links.list_routes(self._host) if destination.prefixlen == 0]
        return min([sizes.get(index, DEFAULT_MTU) for index in ways] + [DEFAULT_MTU])

    def enable_forwarding(self) -> None:
        """Turn IPv4 forwarding on for the host, and say so: the firewall's default for containers is to refuse."""
        if IP_FORWARD.read_text().strip() != "1":
            IP_FORWARD.write_text("1")
            log.warning("Turned net.ipv4.ip_forward on: containers need the host to route for them.")

    def make_bridge(self, network: Network) -> None:
        """Make a network's bridge with its address; what is there already stays."""
        bridge = links.new_bridge(network.bridge, mac=links.mac_of(network.gateway), mtu=network.mtu)
        self._host.transact([bridge], forgive=THERE)
        index = socket.if_nametoindex(network.bridge)
        namespaces.write_sysctl(f"net/ipv6/conf/{network.bridge}/disable_ipv6", "1")
        # Lets a port published on 127.0.0.1 be routed to a container; the other way the firewall refuses.
        namespaces.write_sysctl(f"net/ipv4/conf/{network.bridge}/route_localnet", "1")
        prefix = IPv4Network(network.subnet).prefixlen
        address = links.new_address(index, network.gateway, prefix)
        self._host.transact([links.set_link(index), address], forgive=THERE)

    def delete_links(self, names: Iterable[str]) -> None:
        """Delete links; those that are gone are no error."""
        for name in names:
            self._host.transact([links.delete_link(name)], forgive=GONE)

    def park(self) -> Parked:
        """A namespace with an unattached veth (1.5 ms)."""
        namespace = Namespace.make()
        try:
            return Parked(namespace, self._make_veth(namespace, "eth0", INNER_INDEX))
        except BaseException:
            namespace.close()
            raise

    def attach(
        self, parked: Parked, endpoint: Endpoint, network: Network, *, default_route: bool
    ) -> tuple[Endpoint, int]:
        """Carry out a decided endpoint. Returns it with its outer link, and that link's index.

        Pin first, then the inner end, then the outer one: no packet passes before its source is pinned and, but for
        the first microseconds, its rate is held.
        """
        veth = parked.veth or self._make_veth(parked.namespace, endpoint.interface, _next_index(parked.namespace))
        parked.veth = None
        pin = self._pin(endpoint.on_link(veth.name))
        try:
            self._elements.add([pin])
            parked.namespace.sock.transact(_inner(veth.inner_index, endpoint, network, default_route=default_route))
            self._host.transact(_outer(veth.index, endpoint, network, socket.if_nametoindex(network.bridge)))
            parked.namespace.sock.transact([_inner_queue(veth.inner_index, endpoint)])
        except BaseException:
            self.delete_links([veth.name])
            self._elements.remove([pin])
            raise
        return endpoint.on_link(veth.name), veth.index

    def detach(self, path: Path, endpoint: Endpoint, heir: Endpoint | None) -> None:
        """Take an endpoint's pair away; `heir` is the endpoint that has the default route from now on."""
        self.delete_links([endpoint.host_link])
        self.close_to(endpoint)
        if heir:
            with contextlib.closing(Namespace.open(path)) as namespace:
                route = links.new_default_route(_inner_index(namespace, heir.interface), heir.gateway)
                namespace.sock.transact([route], forgive=THERE)

    def set_rates(self, path: Path, endpoint: Endpoint) -> None:
        """Hold an endpoint to its rates. What the container receives leaves the host's end."""
        shaping.set_rate(self._host, socket.if_nametoindex(endpoint.host_link), endpoint.rate_in_bps)
        with contextlib.closing(Namespace.open(path)) as namespace:
            shaping.set_rate(namespace.sock, _inner_index(namespace, endpoint.interface), endpoint.rate_out_bps)

    def reattach(self, endpoint: Endpoint, bridge: str) -> None:
        """Put an endpoint's outer end into its bridge, where it should be already."""
        outer = socket.if_nametoindex(endpoint.host_link)
        self._host.transact([links.set_link(outer, master=socket.if_nametoindex(bridge))])

    def publish(self, endpoint: Endpoint, bindings: Sequence[PortBinding]) -> None:
        """Lead ports of the host to an endpoint."""
        self._elements.add([self._port(Port(binding, endpoint.address)) for binding in bindings])

    def unpublish(self, endpoint: Endpoint) -> None:
        """Lead no port of the host to an endpoint any more."""
        self._elements.remove([self._port(Port(binding, endpoint.address)) for binding in endpoint.ports])

    def close_to(self, endpoint: Endpoint) -> None:
        """Take an endpoint out of the firewall: its ports, then its pin."""
        self.unpublish(endpoint)
        self._elements.remove([self._pin(endpoint)])

    def _pin(self, endpoint: Endpoint) -> Element:
        """The set element that lets an endpoint use its own addresses."""
        key = Pin(endpoint.host_link, endpoint.mac, endpoint.address).key
        return Element("bridge", self.names.table, "pins", key)

    def _port(self, port: Port) -> Element:
        """The map element of a published port."""
        name = "ports" if port.everywhere else "ports_at"
        return Element("ip", self.names.table, name, port.key, port.value)

    def counters(self, *, queues: bool) -> tuple[dict[int, tuple[int, int, int]], dict[int, Queue]]:
        """(received, sent, dropped) of every link by index, the host's view; and of those with a rate, if `queues`.

        Has a socket of its own: the one method another thread may call.
        """
        return links.counters(self._counting), shaping.queues(self._counting) if queues else {}

    def outgoing(self, path: Path, interface: str) -> Queue | None:
        """The queue of what a container sends, which lies in its namespace at `path`; None when no rate holds."""
        with contextlib.closing(Namespace.open(path)) as namespace:
            found = {link.name: link.index for link in links.list_links(namespace.sock)}
            return shaping.queues(namespace.sock).get(found.get(interface, 0))

    def _make_veth(self, namespace: Namespace, inner: str, inner_index: int) -> Veth:
        while True:
            name, self._next = f"{self.names.veth}{self._next}", self._next + 1
            try:
                wanted = links.new_veth(name, inner, netns_fd=namespace.fd, peer_index=inner_index, mtu=DEFAULT_MTU)
                self._host.transact([wanted])
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
                continue
            return Veth(name, socket.if_nametoindex(name), inner_index)


def _inner(index: int, endpoint: Endpoint, network: Network, *, default_route: bool) -> Sequence[bytes]:
    steps = [
        links.set_link(index, mac=endpoint.mac, mtu=network.mtu),
        links.new_address(index, endpoint.address, endpoint.prefix),
    ]
    if default_route:
        steps.append(links.new_default_route(index, endpoint.gateway))
    return steps


def _inner_queue(index: int, endpoint: Endpoint) -> bytes:
    """Shape the inner end, or only wake it, once both ends are up.

    A link that came up without its peer drops what it should send until the kernel's link watch has run. That takes
    microseconds, but in one of twenty starts the first ARP reply fell into them, and the next try was a second later.
    """
    return shaping.shape(index, endpoint.rate_out_bps) if endpoint.rate_out_bps else shaping.wake(index)


def _outer(index: int, endpoint: Endpoint, network: Network, bridge_index: int) -> Sequence[bytes]:
    steps = [links.without_ipv6(index), links.set_link(index, master=bridge_index, mtu=network.mtu)]
    if endpoint.rate_in_bps:
        steps.insert(0, shaping.shape(index, endpoint.rate_in_bps))
    return steps


def _inner_index(namespace: Namespace, name: str) -> int:
    return next(link.index for link in links.list_links(namespace.sock) if link.name == name)


def _next_index(namespace: Namespace) -> int:
    return max(INNER_INDEX, 1 + max(link.index for link in links.list_links(namespace.sock)))


def _number(name: str, prefix: str) -> int:
    rest = name.removeprefix(prefix)
    return int(rest) if name.startswith(prefix) and rest.isdecimal() else -1
