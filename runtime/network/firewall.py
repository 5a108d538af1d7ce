"""The firewall of one engine: two nftables tables, written whole by `nft -f -`, their sets changed element by element.

The rules name links by prefix, so they stand before the first container and need no change when one comes or goes:
only its pin (link, MAC, address) and its published ports are elements.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from runtime.network.links import mac_bytes
from runtime.network.model import Network, NetworkFault, PortBinding

# Link-local addresses hold clouds' metadata services; two clouds use addresses of their own.
METADATA = ("169.254.0.0/16", "168.63.129.16", "100.100.100.200")
# What one container may send to the resolver, which shares the engine's event loop with everything else.
DNS_RATE = "200/second burst 1000 packets"
# New flows of one container: the table of connections is the host's, and a spray of datagrams would fill it for all.
NEW_FLOW_RATE = "1000/second burst 5000 packets"


@dataclass(frozen=True, slots=True)
class Names:
    """How everything of one engine is called in the kernel; `short` is the state directory's eight hex digits."""

    short: str

    @property
    def table(self) -> str:
        """The nft table, in the families ip and bridge."""
        return f"moorage_{self.short}"

    @property
    def bridge(self) -> str:
        """What bridges' names begin with."""
        return f"m{self.short[:4]}b"

    @property
    def veth(self) -> str:
        """What the outer ends of veth pairs begin with."""
        return f"m{self.short[:4]}v"


@dataclass(frozen=True, slots=True)
class Pin:
    """The only source addresses a link may use: an element of the set `pins`."""

    link: str
    mac: str
    address: str

    @property
    def text(self) -> str:
        """As nft reads it."""
        return f'"{self.link}" . {self.mac} . {self.address}'

    @property
    def key(self) -> bytes:
        """As the kernel keeps it: every field padded to four bytes."""
        return self.link.encode().ljust(16, b"\0") + mac_bytes(self.mac) + bytes(2) + IPv4Address(self.address).packed


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: an element of the map `ports`, or of `ports_at` when bound to one address of the host."""

    binding: PortBinding
    address: str

    @property
    def everywhere(self) -> bool:
        """Whether it answers on every address of the host."""
        return IPv4Address(self.binding.host_address).is_unspecified

    @property
    def text(self) -> str:
        """As nft reads it."""
        at = "" if self.everywhere else f"{self.binding.host_address} . "
        to = f"{self.address} . {self.binding.container_port}"
        return f"{at}{self.binding.protocol} . {self.binding.host_port} : {to}"

    @property
    def key(self) -> bytes:
        """As the kernel keeps it."""
        at = b"" if self.everywhere else IPv4Address(self.binding.host_address).packed
        protocol = socket.IPPROTO_TCP if self.binding.protocol == "tcp" else socket.IPPROTO_UDP
        return at + bytes([protocol, 0, 0, 0]) + _port(self.binding.host_port)

    @property
    def value(self) -> bytes:
        """Where it leads, as the kernel keeps it."""
        return IPv4Address(self.address).packed + _port(self.binding.container_port)


def ruleset(names: Names, networks: Sequence[Network], pins: Iterable[Pin] = (), ports: Iterable[Port] = ()) -> str:
    """The whole firewall as `nft -f` reads it: it replaces what was there in one transaction."""
    published = list(ports)
    everywhere = _elements(port.text for port in published if port.everywhere)
    at = _elements(port.text for port in published if not port.everywhere)
    pairs = _elements(f'"{n.bridge}" . "{n.bridge}"' for n in networks)
    dns = _elements(f'"{n.bridge}" . {n.gateway}' for n in networks)
    subnets = _elements(n.subnet for n in networks)
    internal = _elements(f'"{n.bridge}"' for n in networks if n.internal)
    return f"""
table ip {names.table}
delete table ip {names.table}
table bridge {names.table}
delete table bridge {names.table}

table bridge {names.table} {{
    set pins {{ type ifname . ether_addr . ipv4_addr; {_elements(pin.text for pin in pins)} }}
    chain prerouting {{
        type filter hook prerouting priority -300
        iifname "{names.veth}*" jump pinned
    }}
    chain pinned {{
        ether type ip iifname . ether saddr . ip saddr @pins accept
        ether type arp iifname . ether saddr . arp saddr ip @pins iifname . arp saddr ether . arp saddr ip @pins accept
        drop
    }}
}}

table ip {names.table} {{
    set pairs {{ type ifname . ifname; {pairs} }}
    set dns {{ type ifname . ipv4_addr; {dns} }}
    set dns_askers {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }}
    set starters {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }}
    set subnets {{ type ipv4_addr; flags interval; {subnets} }}
    set internal {{ type ifname; {internal} }}
    set metadata {{ type ipv4_addr; flags interval; elements = {{ {", ".join(METADATA)} }} }}
    map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; {everywhere} }}
    map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {at} }}

    chain prerouting {{
        type filter hook prerouting priority mangle
        iifname "{names.bridge}*" jump from_container
    }}
    chain from_container {{
        iifname . ip daddr @dns th dport 53 update @dns_askers {{ ip saddr limit rate over {DNS_RATE} }} drop
        ct state established,related accept
        ct state invalid drop
        update @starters {{ ip saddr limit rate over {NEW_FLOW_RATE} }} drop
        iifname . ip daddr @dns udp dport 53 accept
        iifname . ip daddr @dns tcp dport 53 accept
        fib daddr type local reject with icmp admin-prohibited
        fib daddr type != unicast drop
    }}
    chain published_from_outside {{
        type nat hook prerouting priority dstnat
        fib daddr type local jump published
    }}
    chain published_from_host {{
        type nat hook output priority -100
        fib daddr type local jump published
    }}
    chain published {{
        dnat ip to ip daddr . meta l4proto . th dport map @ports_at
        dnat ip to meta l4proto . th dport map @ports
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr @subnets oifname != "{names.bridge}*" masquerade
        ip saddr 127.0.0.0/8 oifname "{names.bridge}*" masquerade
    }}
    chain input {{
        type filter hook input priority filter
        iifname "{names.bridge}*" jump to_host
    }}
    chain to_host {{
        ct state established,related accept
        iifname . ip daddr @dns udp dport 53 accept
        iifname . ip daddr @dns tcp dport 53 accept
        reject with icmp admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority filter
        iifname "{names.bridge}*" jump leaving
        oifname "{names.bridge}*" jump entering
    }}
    chain leaving {{
        ct state established,related accept
        iifname . oifname @pairs accept
        oifname "{names.bridge}*" reject with icmp admin-prohibited
        iifname @internal reject with icmp admin-prohibited
        ip daddr @metadata reject with icmp admin-prohibited
        accept
    }}
    chain entering {{
        ct state established,related accept
        ct status dnat accept
        reject with icmp admin-prohibited
    }}
}}
"""


def removal(names: Names) -> str:
    """Text that takes both tables away, whether they are there or not."""
    tables = [f"{family} {names.table}" for family in ("ip", "bridge")]
    return "".join(f"table {table}\ndelete table {table}\n" for table in tables)


def apply(text: str) -> None:
    """Let nft carry out a ruleset in one transaction. Raises NetworkFault with nft's first words."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise NetworkFault("The program nft is missing.", "Install the package nftables.") from error
    if done.returncode != 0:
        words = next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
        raise NetworkFault(
            f"nft refused the firewall: {words}.", "Check that the kernel has nf_tables with nat and bridge."
        )


def tables(names: Names) -> list[str]:
    """Which of the engine's tables exist, as `family name`."""
    done = subprocess.run(["nft", "list", "tables"], text=True, capture_output=True, check=False)
    wanted = {f"{family} {names.table}" for family in ("ip", "bridge")}
    return sorted(wanted & {line.removeprefix("table ").strip() for line in done.stdout.splitlines()})


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + bytes(2)


def _elements(items: Iterable[str]) -> str:
    joined = ", ".join(items)
    return f"elements = {{ {joined} }};" if joined else ""
