"""A tenant and its own network: the namespace is the host's, so addresses, routes, links and shaping are too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from runtime.network.namespaces import Namespace
from tests.runtime.root.walls.conftest import Walls, Yard

ADMIN = ["add_address", "add_route", "change_shaping", "take_link_down"]
RAW = ["raw_socket", "packet_socket"]
RIGHTS = frozenset(("filter", "capabilities"))


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    """The path of one that the host made, as for an engine's container."""
    with contextlib.closing(Namespace.make()) as namespace:
        yield f"/proc/{os.getpid()}/fd/{namespace.fd}"


@pytest.mark.parametrize("off", [frozenset(), RIGHTS], ids=["all walls", "every capability inside"])
def test_the_hosts_namespace_is_not_its_tenants_to_change(yard: Yard, netns: str, off: frozenset[str]) -> None:
    found = yard.try_all([*RAW, *ADMIN], Walls(off, network=netns))
    assert set(found.values()) == {"EPERM"}, found


def test_one_of_its_own_would_be(yard: Yard) -> None:
    found = yard.try_all([*RAW, *ADMIN], Walls(RIGHTS))
    assert set(found.values()) == {"through"}, found


def test_a_command_lines_container_sends_raw_packets_in_its_own_and_changes_nothing(yard: Yard) -> None:
    """As with other runtimes: CAP_NET_RAW is among the default capabilities, CAP_NET_ADMIN is not."""
    found = yard.try_all([*RAW, *ADMIN], Walls(frozenset(("user",))))
    assert {found[name] for name in RAW} == {"through"}
    assert {found[name] for name in ADMIN} == {"EPERM"}
