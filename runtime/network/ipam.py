"""Which subnet a network gets and which address an endpoint gets. Pure: it decides, others remember."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

from runtime.network.model import NetworkFault, NetworkInUse

SUBNET_BITS = 24
MIN_BITS = 29  # six hosts: the bridge and five endpoints


def parse_pool(text: str) -> IPv4Network:
    """The pool subnets are cut from. Raises NetworkFault if it is no CIDR or too small for one /24."""
    try:
        pool = IPv4Network(text)
    except ValueError as error:
        raise NetworkFault(
            f"The subnet pool {text!r} is not an IPv4 network: {error}.", "Give one like 10.201.0.0/16."
        ) from error
    if pool.prefixlen > SUBNET_BITS:
        raise NetworkFault(f"The subnet pool {pool} holds no /{SUBNET_BITS}.", "Give a larger one, like 10.201.0.0/16.")
    return pool


def check_routes(wanted: IPv4Network, routes: Iterable[tuple[IPv4Network, str]]) -> None:
    """Refuse a network that meets a route of the host, given as (destination, link). A default route meets nothing."""
    for destination, link in routes:
        if destination.prefixlen and destination.overlaps(wanted):
            raise NetworkInUse(
                f"{wanted} overlaps {destination}, which this host reaches through {link}.",
                "Choose another range: --subnet-pool for the engine, --subnet for one network.",
            )


def parse_subnet(text: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """A subnet a person asked for. Raises NetworkFault when malformed, NetworkInUse when it meets a taken one."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise NetworkFault(f"{text!r} is not an IPv4 subnet: {error}.", "Give one like 10.50.0.0/24.") from error
    if not 8 <= subnet.prefixlen <= MIN_BITS or not subnet.is_private or subnet.is_loopback or subnet.is_link_local:
        raise NetworkFault(
            f"{subnet} cannot be a container network.", f"Give a private range between /8 and /{MIN_BITS}."
        )
    for other in taken:
        if other.overlaps(subnet):
            raise NetworkInUse(f"{subnet} overlaps {other} of another network.", "Choose another subnet.")
    return subnet


def next_subnet(pool: IPv4Network, taken: Collection[IPv4Network]) -> IPv4Network:
    """The first free /24 of the pool. Raises NetworkInUse when all are taken."""
    for subnet in pool.subnets(new_prefix=SUBNET_BITS):
        if not any(other.overlaps(subnet) for other in taken):
            return subnet
    count = 2 ** (SUBNET_BITS - pool.prefixlen)
    raise NetworkInUse(
        f"All {count} subnets of the pool {pool} are taken.", "Remove networks or give a larger --subnet-pool."
    )


def parse_mtu(text: str) -> int:
    """An MTU a person asked for. Raises NetworkFault outside 576 (RFC 791) to 65535."""
    if text.isascii() and text.isdecimal() and 576 <= int(text) <= 65535:
        return int(text)
    raise NetworkFault(f"{text[:20]!r} is not an MTU.", "Give bytes from 576 to 65535.")


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The bridge's own address: the first of the subnet."""
    return subnet.network_address + 1


def check_address(subnet: IPv4Network, text: str, taken: Collection[IPv4Address]) -> IPv4Address:
    """An address a person asked for. Raises NetworkFault, NetworkInUse."""
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise NetworkFault(f"{text!r} is not an IPv4 address.") from error
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address, gateway(subnet)):
        raise NetworkFault(f"{address} is not an address for a container in {subnet}.")
    if address in taken:
        raise NetworkInUse(f"{address} belongs to another container.", "Choose another, or none to get a free one.")
    return address


def next_address(subnet: IPv4Network, taken: Collection[IPv4Address], last: IPv4Address | None) -> IPv4Address:
    """The first free address after `last`, going round: one that was given back rests until all others were used.

    Raises NetworkInUse when the subnet is full.
    """
    first, count = int(subnet.network_address) + 2, subnet.num_addresses - 3
    offset = int(last) + 1 - first if last is not None and last in subnet else 0
    for step in range(count):
        address = IPv4Address(first + (offset + step) % count)
        if address not in taken:
            return address
    raise NetworkInUse(
        f"All {count} addresses of {subnet} are taken.", "Remove containers or use a network of its own."
    )
