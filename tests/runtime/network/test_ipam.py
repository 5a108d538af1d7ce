"""Subnets and addresses, decided without a kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.network import ipam
from runtime.network.model import NetworkFault, NetworkInUse

POOL = IPv4Network("10.201.0.0/16")
SUBNET = IPv4Network("10.201.3.0/24")


def test_subnets_are_cut_from_the_pool_in_order() -> None:
    taken = [IPv4Network("10.201.0.0/24"), IPv4Network("10.201.2.0/23")]
    assert ipam.next_subnet(POOL, taken) == IPv4Network("10.201.1.0/24")


def test_a_full_pool_says_how_many_it_had() -> None:
    with pytest.raises(NetworkInUse, match="All 256 subnets"):
        ipam.next_subnet(POOL, [POOL])


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/16", "fd00::/8", "10.0.0.0/25", "x" * 500])
def test_a_pool_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(NetworkFault):
        ipam.parse_pool(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.0/24", "127.0.0.0/24", "169.254.0.0/24", "10.0.0.0/30", "10.0.0.1/24", "../etc"]
)
def test_a_subnet_that_would_cut_the_host_off_is_refused(text: str) -> None:
    with pytest.raises(NetworkFault):
        ipam.parse_subnet(text, [])


def test_a_default_route_meets_no_pool_and_a_real_one_is_named() -> None:
    ipam.check_routes(POOL, [(IPv4Network("0.0.0.0/0"), "eth0")])
    with pytest.raises(NetworkInUse, match=r"overlaps 10\.0\.0\.0/8.*through eth1"):
        ipam.check_routes(POOL, [(IPv4Network("10.0.0.0/8"), "eth1")])


@given(st.sets(st.integers(2, 254), max_size=252), st.integers(2, 254))
def test_the_next_address_is_free_usable_and_the_first_after_the_last(taken: set[int], last: int) -> None:
    used = {SUBNET.network_address + n for n in taken}
    found = int(ipam.next_address(SUBNET, used, SUBNET.network_address + last)) & 0xFF
    candidates = [n for n in [*range(last + 1, 255), *range(2, 255)] if n not in taken]
    assert found == candidates[0]


def test_a_full_subnet_is_said_with_its_count() -> None:
    with pytest.raises(NetworkInUse, match="All 253 addresses"):
        ipam.next_address(SUBNET, set(SUBNET.hosts()), None)


@pytest.mark.parametrize("text", ["10.201.3.0", "10.201.3.1", "10.201.3.255", "10.201.4.7", "ten", ""])
def test_an_address_no_container_can_have_is_refused(text: str) -> None:
    with pytest.raises(NetworkFault):
        ipam.check_address(SUBNET, text, set())


def test_an_address_in_use_is_refused() -> None:
    with pytest.raises(NetworkInUse):
        ipam.check_address(SUBNET, "10.201.3.9", {IPv4Address("10.201.3.9")})


@pytest.mark.parametrize("text", ["", "1e3", "-1500", "575", "65536", "٣٠٠٠"])
def test_an_mtu_no_link_can_have_is_refused(text: str) -> None:
    with pytest.raises(NetworkFault):
        ipam.parse_mtu(text)
