"""What the network of one engine is made of, in the words of the container network model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from runtime.errors import RuntimeFault

DEFAULT_NETWORK = "bridge"

type Protocol = Literal["tcp", "udp"]


class NetworkFault(RuntimeFault):
    """A network request that is refused or could not be carried out."""


class NoSuchNetwork(NetworkFault):
    """Neither a name nor an id (or a prefix of one) of a network."""


class NetworkInUse(NetworkFault):
    """The name, subnet or port is taken, or the network still has endpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One bridge: a team's instances reach each other on it, and nobody else reaches them."""

    id: str  # 64 hex digits
    name: str
    subnet: str  # CIDR
    gateway: str  # the bridge's own address; DNS answers there
    bridge: str  # link name on the host
    mtu: int = 1500
    internal: bool = False  # no way out to the world
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0  # seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A network namespace that belongs to the host's user namespace, kept by a bind mount at `path`."""

    container_id: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """A port of the host that leads to a port of a container. `host_port` 0 asks for any free one."""

    container_port: int
    host_port: int = 0
    host_address: str = "0.0.0.0"
    protocol: Protocol = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A sandbox's place in a network: a veth pair whose inner end is `interface`, whose outer end is `host_link`."""

    id: str  # 64 hex digits
    container_id: str
    network_id: str
    network: str  # the network's name
    address: str
    prefix: int  # bits
    gateway: str
    mac: str
    host_link: str
    interface: str = "eth0"
    aliases: tuple[str, ...] = ()
    rate_in_bps: int = 0  # bits per second, 0: unlimited
    rate_out_bps: int = 0
    ports: tuple[PortBinding, ...] = ()

    def on_link(self, host_link: str) -> Endpoint:
        """The same endpoint with the name of its outer end, which the kernel's hand decides."""
        return replace(self, host_link=host_link)


@dataclass(frozen=True, slots=True)
class Queue:
    """What a rate did to packets since it was set: how often the next one had to wait, and how many were dropped."""

    waits: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Traffic of one endpoint as the container sees it, in bytes since it was connected; `drops` in packets.

    `incoming` is the queue before the container, None where no rate holds.
    """

    rx_bytes: int = 0
    tx_bytes: int = 0
    drops: int = 0
    incoming: Queue | None = None


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What the kernel holds for this state directory though no record asks for it: `make doctor` wants none."""

    links: tuple[str, ...] = ()
    netns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    records: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are in all."""
        return len(self.links) + len(self.netns) + len(self.tables) + len(self.records)
