"""What one engine knows of its networks and sandboxes, in memory. It decides names and addresses and touches no kernel."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from runtime.network import ipam
from runtime.network.model import (
    DEFAULT_NETWORK,
    Endpoint,
    Network,
    NetworkFault,
    NetworkInUse,
    NoSuchNetwork,
)
from runtime.network.records import SandboxRecord

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
RESERVED_NAMES = ("host", "none", "container", "default")


MTU_OPTION = "com.docker.network.driver.mtu"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network as it was asked for. Without `subnet` the next free /24 of the pool is meant."""

    name: str
    subnet: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """The address an endpoint must have, or the one it would rather have; "" is none."""

    asked: str = ""
    preferred: str = ""


class Book:
    """Networks by id, sandboxes by container id, and addresses claimed by endpoints on their way."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.claimed: set[IPv4Address] = set()
        self.reserved: dict[
            str, tuple[str, IPv4Address]
        ] = {}  # network id and address, by the container that comes back

    def get(self, name_or_id: str) -> Network:
        """The network of that name, id or unique id prefix. Raises NoSuchNetwork."""
        for network in self.networks.values():
            if name_or_id in (network.name, network.id):
                return network
        found = [network for network in self.networks.values() if name_or_id and network.id.startswith(name_or_id)]
        if len(found) != 1:
            raise NoSuchNetwork(f"network {name_or_id[:128]} not found.", "List them with: docker network ls")
        return found[0]

    def sorted(self) -> Sequence[Network]:
        """All networks, the default one first, then by age."""
        return sorted(self.networks.values(), key=lambda network: (network.name != DEFAULT_NETWORK, network.created))

    def check_name(self, name: str) -> None:
        """Refuse a name that is malformed, reserved or taken."""
        if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
            raise NetworkFault(
                f"{name[:128]!r} cannot name a network.",
                f"Use letters, digits, '_', '.' and '-', and none of {', '.join(RESERVED_NAMES)}.",
            )
        if any(network.name == name for network in self.networks.values()):
            raise NetworkInUse(f"A network called {name} exists already.", "Choose another name.")

    def decide(
        self,
        wanted: Wanted,
        pool: IPv4Network,
        bridge_prefix: str,
        *,
        routes: Iterable[tuple[IPv4Network, str]],
        mtu: int,
    ) -> Network:
        """The network that a wish becomes, given the host's other routes and MTU. Raises NetworkFault, NetworkInUse."""
        self.check_name(wanted.name)
        taken = self.subnets()
        foreign = list(routes)
        if wanted.subnet:
            subnet = ipam.parse_subnet(wanted.subnet, taken)
            ipam.check_routes(subnet, foreign)
        else:
            elsewhere = [destination for destination, _ in foreign if destination.prefixlen]
            subnet = ipam.next_subnet(pool, [*taken, *elsewhere])
        asked_mtu = wanted.options.get(MTU_OPTION)
        return Network(
            id=secrets.token_hex(32),
            name=wanted.name,
            subnet=str(subnet),
            gateway=str(ipam.gateway(subnet)),
            bridge=self.free_bridge(bridge_prefix),
            mtu=ipam.parse_mtu(asked_mtu) if asked_mtu else mtu,
            internal=wanted.internal,
            labels=dict(wanted.labels),
            options=dict(wanted.options),
            created=time.time(),
        )

    def check_removable(self, name_or_id: str) -> Network:
        """The network to remove. Raises NoSuchNetwork, NetworkInUse with who is on it, NetworkFault for the default."""
        network = self.get(name_or_id)
        if network.name == DEFAULT_NETWORK:
            raise NetworkFault(f"The network {DEFAULT_NETWORK} is always there and cannot be removed.")
        if members := self.members(network.id):
            ids = ", ".join(endpoint.container_id[:12] for endpoint in members[:5])
            raise NetworkInUse(
                f"Network {network.name} has {len(members)} active endpoints: {ids}.", "Remove these first."
            )
        return network

    def subnets(self) -> list[IPv4Network]:
        """The subnets of all networks."""
        return [IPv4Network(network.subnet) for network in self.networks.values()]

    def free_bridge(self, prefix: str) -> str:
        """The first link name of the form `<prefix><n>` that no network has."""
        taken = {network.bridge for network in self.networks.values()}
        return next(name for n in range(len(taken) + 1) if (name := f"{prefix}{n}") not in taken)

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """A container's endpoints in the order they were connected."""
        record = self.sandboxes.get(container_id)
        return record.endpoints if record else ()

    def everyone(self) -> Iterable[Endpoint]:
        """All endpoints."""
        return (endpoint for record in self.sandboxes.values() for endpoint in record.endpoints)

    def members(self, network_id: str) -> tuple[Endpoint, ...]:
        """All endpoints of a network."""
        return tuple(endpoint for endpoint in self.everyone() if endpoint.network_id == network_id)

    def current(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint as it is now. Raises NetworkFault if it was disconnected."""
        for one in self.endpoints(endpoint.container_id):
            if one.id == endpoint.id:
                return one
        raise NetworkFault(f"{endpoint.container_id[:12]} is not connected to {endpoint.network} any more.")

    def put(self, endpoint: Endpoint) -> SandboxRecord:
        """Keep a new or changed endpoint; returns its sandbox's record as it is now."""
        record = self.sandboxes[endpoint.container_id]
        others = {one.id: one for one in record.endpoints}
        changed = replace(record, endpoints=tuple((others | {endpoint.id: endpoint}).values()))
        self.sandboxes[endpoint.container_id] = changed
        return changed

    def drop(self, endpoint: Endpoint) -> SandboxRecord:
        """Forget an endpoint; returns its sandbox's record as it is now."""
        record = self.sandboxes[endpoint.container_id]
        changed = replace(record, endpoints=tuple(one for one in record.endpoints if one.id != endpoint.id))
        self.sandboxes[endpoint.container_id] = changed
        return changed

    def taken(self, network: Network, container_id: str = "") -> Collection[IPv4Address]:
        """Addresses of a network that are in use or about to be, but for what is reserved for this container."""
        others = {a for one, (at, a) in self.reserved.items() if at == network.id and one != container_id}
        return self.claimed | others | {IPv4Address(endpoint.address) for endpoint in self.members(network.id)}

    def check_connect(self, container_id: str, network: Network) -> None:
        """Refuse a connection without a sandbox, or a second one to the same network."""
        if container_id not in self.sandboxes:
            raise NetworkFault(f"The container {container_id[:12]} has no network sandbox.")
        if any(endpoint.network_id == network.id for endpoint in self.endpoints(container_id)):
            raise NetworkInUse(f"The container {container_id[:12]} is connected to {network.name} already.")

    def choose_address(self, container_id: str, network: Network, seat: Seat, last: IPv4Address | None) -> IPv4Address:
        """The address a new endpoint gets; `last` is the one given out before."""
        subnet, taken = IPv4Network(network.subnet), self.taken(network, container_id)
        if seat.asked:
            return ipam.check_address(subnet, seat.asked, taken)
        with suppress(NetworkFault):
            return ipam.check_address(subnet, seat.preferred, taken)
        return ipam.next_address(subnet, taken, last)

    def free_interface(self, container_id: str) -> str:
        """The first `eth<n>` a sandbox does not have."""
        used = {endpoint.interface for endpoint in self.endpoints(container_id)}
        return next(name for n in range(len(used) + 1) if (name := f"eth{n}") not in used)
