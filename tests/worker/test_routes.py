"""Who stands in the route."""

from __future__ import annotations

import pytest

from worker.protocol import Observed, ObservedInstance, Route
from worker.routes import app_routes


def servers(*observed: ObservedInstance, names: tuple[str, ...] = ("a", "b")) -> tuple[list[str], str]:
    """Names of the servers in the route of instances a and b, and the page."""
    known = {o.id: o for o in observed}
    found = app_routes([Route(app="x", names=("X.localhost",), instances=names)], known.get)[0]
    assert found.names == ("x.localhost",)
    return [s.name for s in found.servers], found.page


def seen(name: str, state: Observed, address: str = "10.0.0.1") -> ObservedInstance:
    return ObservedInstance(id=name, state=state, address=address, port=8080)


def test_healthy_ones_take_the_requests() -> None:
    assert servers(seen("a", "healthy"), seen("b", "healthy"))[0] == ["a", "b"]


@pytest.mark.parametrize("state", ["unhealthy", "exited", "starting", "checking", "draining", "stopped", "failed"])
def test_one_that_is_not_healthy_leaves_the_route_while_another_is(state: Observed) -> None:
    assert servers(seen("a", state), seen("b", "healthy"))[0] == ["b"]


@pytest.mark.parametrize("state", ["exited", "starting", "checking"])
def test_a_single_one_that_restarts_keeps_its_place_so_that_retries_bridge_it(state: Observed) -> None:
    assert servers(seen("a", state))[0] == ["a"]


@pytest.mark.parametrize("state", ["unhealthy", "draining", "stopped", "failed", "pulling"])
def test_without_anybody_able_there_is_a_page(state: Observed) -> None:
    assert servers(seen("a", state)) == ([], "unreachable")


def test_an_instance_without_an_address_cannot_be_routed_to() -> None:
    assert servers(seen("a", "healthy", address=""))[0] == []


def test_a_route_without_instances_has_the_page_the_portal_says() -> None:
    assert servers(names=()) == ([], "starting")


@pytest.mark.parametrize("name", ["a b.localhost", "x\ny app_0", "-a.localhost", "<b>.localhost", "", "a" * 300])
def test_a_name_that_is_no_host_name_never_reaches_haproxys_files(name: str) -> None:
    found = app_routes([Route(app="x", names=(name, "ok.localhost"), instances=())], {}.get)[0]
    assert found.names == ("ok.localhost",)
