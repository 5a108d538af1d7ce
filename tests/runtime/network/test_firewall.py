"""What the firewall's text and the kernel's form of its elements say."""

from __future__ import annotations

from runtime.network.firewall import Names, Pin, Port, removal, ruleset
from runtime.network.model import Network, PortBinding
from runtime.network.shaping import bucket

NAMES = Names("0123abcd")
NETWORKS = (
    Network(id="1", name="bridge", subnet="10.201.0.0/24", gateway="10.201.0.1", bridge="m0123b0"),
    Network(id="2", name="shut", subnet="10.201.1.0/24", gateway="10.201.1.1", bridge="m0123b1", internal=True),
)


def test_names_fit_into_a_links_name() -> None:
    assert max(len(f"{prefix}99999999") for prefix in (NAMES.bridge, NAMES.veth)) < 16


def test_the_ruleset_replaces_both_tables_in_one_transaction() -> None:
    text = ruleset(NAMES, NETWORKS)
    assert text.lstrip().startswith(removal(NAMES).rstrip())


def test_only_internal_networks_are_shut() -> None:
    assert 'set internal { type ifname; elements = { "m0123b1" }; }' in ruleset(NAMES, NETWORKS)


def test_an_empty_set_has_no_elements_clause() -> None:
    assert "set pins { type ifname . ether_addr . ipv4_addr;  }" in ruleset(NAMES, ())


def test_a_pin_is_written_for_nft_and_for_the_kernel() -> None:
    pin = Pin("m0123v7", "02:42:0a:c9:00:02", "10.201.0.2")
    assert pin.text == '"m0123v7" . 02:42:0a:c9:00:02 . 10.201.0.2'
    assert pin.key == b"m0123v7".ljust(16, b"\0") + bytes.fromhex("02420ac90002 0000 0ac90002")


def test_a_port_on_every_address_and_one_on_a_single_address() -> None:
    everywhere = Port(PortBinding(container_port=80, host_port=8081), "10.201.0.2")
    local = Port(PortBinding(container_port=53, host_port=53, host_address="127.0.0.1", protocol="udp"), "10.201.0.2")
    assert everywhere.text == "tcp . 8081 : 10.201.0.2 . 80"
    assert everywhere.key == bytes.fromhex("06000000 1f910000")
    assert local.text == "127.0.0.1 . udp . 53 : 10.201.0.2 . 53"
    assert local.key == bytes.fromhex("7f000001 11000000 00350000")
    assert local.value == bytes.fromhex("0ac90002 00350000")


def test_a_bucket_lets_an_offloaded_packet_pass_at_high_rates_and_stays_small_at_low_ones() -> None:
    assert bucket(100_000_000).burst > 65536
    assert bucket(1_000_000).burst * 8 < 0.15 * 1_000_000
    assert all(bucket(rate).limit > bucket(rate).burst > 1514 for rate in (1, 10**3, 10**6, 10**9, 10**11))
