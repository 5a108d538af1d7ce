"""The pure rollout: single decisions, and hundreds of random histories in which the app must go on serving."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from portal.releases.models import DeploymentState as State
from portal.releases.rollout import ACTIVE, CANCELLABLE, Member, Situation, Step, fail, next_step


def member(name: str, *, mine: bool, observed: str = "healthy", ordinal: int = 0, process: str = "web") -> Member:
    return Member(id=name, process=process, ordinal=ordinal, mine=mine, observed=observed)


def situation(state: str, *members: Member, **more: object) -> Situation:
    return Situation(state=state, counts={"web": 1}, members=members, **more)  # type: ignore[arg-type]


def test_a_queued_deployment_starts_what_is_missing() -> None:
    step = next_step(situation(State.QUEUED, member("old", mine=False)))
    assert step is not None
    assert (step.to, step.start) == (State.PULLING, (("web", 0),))


def test_it_waits_for_an_older_one_that_switches() -> None:
    assert next_step(situation(State.QUEUED, waits_for=1)) is None


@pytest.mark.parametrize("ended", ["exited", "failed", "stopped"])
@pytest.mark.parametrize("state", [State.PULLING, State.STARTING, State.CHECKING])
def test_an_exit_before_live_fails_at_once_and_stops_only_the_new(state: State, ended: str) -> None:
    step = next_step(situation(state, member("old", mine=False), member("new", mine=True, observed=ended)))
    assert step is not None
    assert (step.to, step.stop, step.drain, step.routed) == (State.FAILED, ("new",), (), None)
    assert step.text.startswith("new: ")


def test_an_exit_while_switching_gives_the_old_its_route_back() -> None:
    step = next_step(situation(State.SWITCHING, member("old", mine=False), member("new", mine=True, observed="exited")))
    assert step is not None
    assert (step.to, step.routed, step.stop) == (State.FAILED, ("old",), ("new",))


@pytest.mark.parametrize("state", [State.PULLING, State.STARTING, State.CHECKING, State.SWITCHING])
def test_every_state_has_a_deadline_whose_sentence_names_the_seconds(state: State) -> None:
    late = situation(state, member("new", mine=True, observed="pulling"), in_state_s=10_000)
    step = next_step(late)
    assert step is not None
    assert step.to == State.FAILED
    assert " s" in step.text


def test_a_silent_host_is_named_as_the_reason() -> None:
    late = situation(State.PULLING, member("new", mine=True), in_state_s=10_000, silent_hosts=("far",))
    step = next_step(late)
    assert step is not None
    assert "Host far has not reported" in step.text


def test_the_route_changes_only_when_all_new_ones_are_healthy() -> None:
    half = (member("a", mine=True), member("b", mine=True, observed="checking", ordinal=1))
    assert next_step(situation(State.CHECKING, *half)) is None
    whole = (member("a", mine=True), member("b", mine=True, ordinal=1))
    step = next_step(situation(State.CHECKING, member("old", mine=False), *whole))
    assert step is not None
    assert (step.to, step.routed, step.drain) == (State.SWITCHING, ("a", "b"), ())


def test_live_waits_for_every_ingress_and_then_drains_the_old() -> None:
    members = (member("old", mine=False), member("new", mine=True))
    assert next_step(situation(State.SWITCHING, *members)) is None
    step = next_step(situation(State.SWITCHING, *members, routes_in=True))
    assert step is not None
    assert (step.to, step.keep, step.drain) == (State.LIVE, ("new",), ("old",))


def test_scaling_down_keeps_the_first_and_drains_the_rest() -> None:
    members = tuple(member(f"i{n}", mine=False, ordinal=n) for n in range(3))
    now = Situation(state=State.CHECKING, counts={"web": 1}, members=members, adds=True)
    switch = next_step(now)
    assert switch is not None
    assert switch.routed == ("i0",)
    done = next_step(dataclasses.replace(now, state=State.SWITCHING, routes_in=True))
    assert done is not None
    assert done.drain == ("i1", "i2")


def test_only_web_gets_traffic() -> None:
    members = (member("w", mine=True), member("j", mine=True, process="jobs"))
    now = Situation(state=State.CHECKING, counts={"web": 1, "jobs": 1}, members=members)
    step = next_step(now)
    assert step is not None
    assert step.routed == ("w",)


@pytest.mark.parametrize("state", [State.LIVE, State.FAILED, State.CANCELLED, State.SUPERSEDED])
def test_an_end_stays_an_end(state: State) -> None:
    assert next_step(situation(state, member("new", mine=True, observed="exited"), in_state_s=1e9)) is None


class Rollouts(RuleBasedStateMachine):
    """One app, any order of deployments, observations, route reports, delays and cancellations."""

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, tuple[int, Member]] = {}  # by id: deployment number and row
        self.states: dict[int, str] = {}
        self.adds: dict[int, bool] = {}
        self.in_state_s = 0.0
        self.routes_in = False
        self.count = 1
        self.served = False  # something healthy was in the route
        self.crashed: set[str] = set()

    def look(self, number: int) -> Situation:
        rows = tuple(dataclasses.replace(row, mine=owner == number) for owner, row in self.members.values())
        older = [n for n, state in self.states.items() if n < number and state == State.SWITCHING]
        return Situation(
            state=self.states[number],
            counts={"web": self.count},
            members=rows,
            adds=self.adds[number],
            waits_for=older[0] if older else 0,
            routes_in=self.routes_in,
            in_state_s=self.in_state_s,
        )

    def change(self, ids: tuple[str, ...], **fields: object) -> None:
        for name in ids:
            owner, row = self.members[name]
            self.members[name] = (owner, dataclasses.replace(row, **fields))  # type: ignore[arg-type]

    def perform(self, number: int, step: Step) -> None:
        self.states[number] = step.to
        self.in_state_s = 0
        for process, ordinal in step.start:
            name = f"{number}-{process}-{ordinal}"
            self.members[name] = (number, Member(id=name, process=process, ordinal=ordinal, mine=False))
        self.change(step.drain, wanted="draining", routed=False)
        self.change(step.stop, wanted="removed", routed=False)
        if step.routed is not None:
            self.change(tuple(self.members), routed=False)
            self.change(step.routed, routed=True)
            self.routes_in = False
        if step.to == State.LIVE:
            for other, state in self.states.items():
                if state == State.LIVE and other != number:
                    self.states[other] = State.SUPERSEDED

    def advance(self) -> None:
        for number in sorted(self.states):
            for _ in range(12):
                step = next_step(self.look(number))
                if step is None:
                    break
                self.perform(number, step)

    @rule(scales=st.booleans(), count=st.integers(1, 3))
    def deploy(self, *, scales: bool, count: int) -> None:
        up = any(row.wanted == "running" for _, row in self.members.values())
        number = len(self.states) + 1
        for other, state in self.states.items():
            if state in CANCELLABLE:
                self.perform(other, fail(self.look(other), f"replaced by {number}", to=State.CANCELLED))
        live = State.LIVE in self.states.values()
        self.count = count
        self.states[number], self.adds[number] = State.QUEUED, scales and live and up
        self.advance()

    @precondition(lambda self: self.members)
    @rule(
        data=st.data(), observed=st.sampled_from(["pulling", "starting", "checking", "unhealthy", "healthy", "healthy"])
    )
    def observe(self, data: st.DataObject, observed: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.members)))
        if not (self.members[name][1].routed and observed != "healthy"):  # what serves does so until it crashes
            self.change((name,), observed=observed)
        self.advance()

    @precondition(lambda self: any(not row.routed for _, row in self.members.values()))
    @rule(data=st.data())
    def crash_something_new(self, data: st.DataObject) -> None:
        quiet = sorted(name for name, (_, row) in self.members.items() if not row.routed)
        name = data.draw(st.sampled_from(quiet))
        owner = self.members[name][0]
        if self.states[owner] in ACTIVE:
            self.change((name,), observed="exited", reason="exited with code 1")
        self.advance()

    @rule()
    def ingress_reports(self) -> None:
        self.routes_in = True
        self.advance()

    @rule(seconds=st.sampled_from([1.0, 20.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.in_state_s += seconds
        self.advance()

    @precondition(lambda self: any(state in ACTIVE for state in self.states.values()))
    @rule()
    def cancel(self) -> None:
        number = max(n for n, state in self.states.items() if state in ACTIVE)
        self.perform(number, fail(self.look(number), "cancelled", to=State.CANCELLED))
        self.advance()

    @invariant()
    def the_app_goes_on_serving(self) -> None:
        serving = [
            row
            for _, row in self.members.values()
            if row.routed and row.wanted == "running" and row.observed == "healthy"
        ]
        if State.LIVE in self.states.values():
            self.served = True
        assert serving or not self.served, "an app that was live must have a healthy instance in its route"

    @invariant()
    def only_what_is_wanted_is_routed(self) -> None:
        assert all(row.wanted == "running" for _, row in self.members.values() if row.routed)

    @invariant()
    def at_most_one_deployment_is_live_and_one_moves(self) -> None:
        states = list(self.states.values())
        assert states.count(State.LIVE) <= 1
        assert sum(state in CANCELLABLE for state in states) <= 1

    @invariant()
    def what_ended_badly_leaves_nothing_running(self) -> None:
        for owner, row in self.members.values():
            if self.states[owner] in (State.FAILED, State.CANCELLED):
                assert row.wanted != "running"


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
