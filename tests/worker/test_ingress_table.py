"""Which app gets which backend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.ingress_table import SLOTS_STEP, SPARE, AppRoute, Server, Table, assign


def route(app: str, *addresses: str, page: str = "starting") -> AppRoute:
    servers = tuple(Server(f"{app}-{n}", a, 8080) for n, a in enumerate(addresses))
    return AppRoute(app=app, names=(f"{app}.localhost",), servers=servers, page=page)


def test_an_app_keeps_its_backend_while_others_come_and_go() -> None:
    first = assign([route("a", "10.0.0.1"), route("b", "10.0.0.2")], Table())
    second = assign([route("b", "10.0.0.3"), route("aa", "10.0.0.4")], first)
    assert second.hosts["b.localhost"] == first.hosts["b.localhost"]


def test_an_app_without_servers_has_a_page_and_no_backend() -> None:
    table = assign([route("a", page="stopped")], Table())
    assert table.states == {"a.localhost": "stopped"}
    assert table.hosts == {}


def test_nobody_moves_in_where_servers_are_still_leaving() -> None:
    assert assign([route("a", "10.0.0.1")], Table(), occupied={0, 1}).hosts == {"a.localhost": "app_2"}


def test_the_number_of_backends_grows_before_they_run_out_and_never_shrinks() -> None:
    many = [route(f"a{n:03}", "10.0.0.1") for n in range(SLOTS_STEP - SPARE + 1)]
    grown = assign(many, Table())
    assert grown.slots == 2 * SLOTS_STEP
    assert assign([], grown).slots == 2 * SLOTS_STEP


routes = st.lists(
    st.builds(
        lambda app, n: route(app, *(f"10.0.0.{i}" for i in range(n))), st.sampled_from("abcdefgh"), st.integers(0, 3)
    ),
    unique_by=lambda r: r.app,
)


@given(st.lists(routes, min_size=1, max_size=6))
def test_no_two_apps_ever_share_a_backend(rounds: list[list[AppRoute]]) -> None:
    table = Table()
    for wanted in rounds:
        table = assign(wanted, table)
        used = [r.slot for r in table.routes if r.slot is not None]
        assert len(used) == len(set(used))
        assert max(used, default=0) + SPARE < table.slots
        assert {n for r in wanted for n in r.names} == set(table.hosts) | set(table.states)


@given(routes)
def test_the_table_survives_the_disk(wanted: list[AppRoute]) -> None:
    table = assign(wanted, Table())
    assert Table.from_json(table.to_json()) == table
