"""How a deployment goes, decided purely: what is seen in, the one next step out. `advance` performs it.

Start the new; wait until each is healthy from outside; put them into the route; when every ingress has it, keep the new,
drain the old, and say live. Whatever goes wrong before stops the *new* and leaves the old serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from portal.releases.models import DeploymentState as State

ACTIVE = (State.QUEUED, State.PULLING, State.STARTING, State.CHECKING, State.SWITCHING)
CANCELLABLE = ACTIVE[:-1]
DEADLINE_S: dict[str, float] = {
    State.QUEUED: 60,
    State.PULLING: 600,
    State.STARTING: 60,
    State.CHECKING: 90,
    State.SWITCHING: 30,
}
_WHERE = {
    "absent": State.PULLING,
    "pulling": State.PULLING,
    "creating": State.STARTING,
    "starting": State.STARTING,
    "checking": State.CHECKING,
    "unhealthy": State.CHECKING,
    "healthy": State.SWITCHING,
}
_ENDED = frozenset({"exited", "failed", "stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One instance of the app. `mine`: made by this deployment."""

    id: str
    process: str
    ordinal: int
    mine: bool
    wanted: str = "running"
    observed: str = "absent"
    routed: bool = False
    reason: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that counts for the next step. `adds`: the old stay up to `counts` (scaling), else they are replaced."""

    state: str
    counts: Mapping[str, int]
    members: tuple[Member, ...] = ()
    adds: bool = False
    waits_for: int = 0  # number of an older deployment that is switching
    routes_in: bool = False  # every ingress has reported this deployment's route
    in_state_s: float = 0
    check_deadline_s: float = 60
    silent_hosts: tuple[str, ...] = ()
    exclusive: tuple[str, ...] = ()  # volumes with one writer at a time

    @property
    def mine(self) -> tuple[Member, ...]:
        """The new instances."""
        return tuple(m for m in self.members if m.mine and m.wanted == "running")

    @property
    def old(self) -> tuple[Member, ...]:
        """What serves until the new ones do."""
        return tuple(m for m in self.members if not m.mine and m.wanted == "running")

    @property
    def halted(self) -> tuple[Member, ...]:
        """Old instances that were stopped to make way, and run again when this fails."""
        return tuple(m for m in self.members if not m.mine and m.wanted == "stopped")

    @property
    def staying(self) -> tuple[Member, ...]:
        """Old instances that outlive the deployment."""
        return tuple(m for m in self.old if self.adds and m.ordinal < self.counts.get(m.process, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transition with what belongs to it. `routed` None leaves the route alone; ids otherwise name all that is in it."""

    to: State
    text: str = ""
    start: tuple[tuple[str, int], ...] = ()
    routed: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()  # the engine restarts them from now on
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    halt: tuple[str, ...] = ()  # stopped and kept, to run again if need be
    resume: tuple[str, ...] = ()


def next_step(now: Situation) -> Step | None:
    """The step that is due, or None while something is awaited."""
    if now.state not in ACTIVE:
        return None
    if now.state == State.QUEUED:
        return _begin(now)
    broken = next((m for m in now.mine if m.observed in _ENDED), None)
    if broken is not None:
        return fail(now, f"{broken.id}: {broken.reason or f'{broken.observed} before it was live'}")
    if now.in_state_s > _deadline_s(now):
        return fail(now, _overdue(now))
    if now.state == State.SWITCHING:
        return _finish(now) if now.routes_in else None
    reached = min((ACTIVE.index(_WHERE.get(m.observed, State.PULLING)) for m in now.mine), default=len(ACTIVE) - 1)
    following = ACTIVE.index(State(now.state)) + 1
    if reached < following:
        return None
    if ACTIVE[following] == State.STARTING and now.exclusive and now.old:
        return _make_way(now)
    return _switch(now) if ACTIVE[following] == State.SWITCHING else Step(to=ACTIVE[following])


def _make_way(now: Situation) -> Step:
    """The image is there: from here on until the new one is healthy nothing serves. The host starts it when the old has stopped."""
    names, others = ", ".join(now.exclusive), now.old
    many = "instance is" if len(others) == 1 else "instances are"
    text = f"{len(others)} running {many} stopped first: {names} has one writer at a time"
    return Step(to=State.STARTING, text=text, routed=_traffic(m for m in now.staying), halt=_ids(others))


def _begin(now: Situation) -> Step | None:
    if now.waits_for:
        return None
    have = {(m.process, m.ordinal) for m in now.staying}
    wanted = [(process, n) for process, count in sorted(now.counts.items()) for n in range(count)]
    missing = tuple(slot for slot in wanted if slot not in have)
    return Step(
        to=State.PULLING, text=f"{len(missing)} to start" if len(missing) != 1 else "1 instance to start", start=missing
    )


def _switch(now: Situation) -> Step:
    return Step(to=State.SWITCHING, text="healthy; the route changes", routed=_traffic(now.staying + now.mine))


def _finish(now: Situation) -> Step:
    going = [m for m in now.old if m not in now.staying]
    text = "every ingress has the route"
    return Step(to=State.LIVE, text=text, keep=_ids(now.mine), drain=_ids(going), stop=_ids(now.halted))


def fail(now: Situation, reason: str, *, to: State = State.FAILED) -> Step:
    """End it: stop the new, leave the old, and give the old the route back where it was taken. What made way runs again."""
    taken = now.state == State.SWITCHING or bool(now.halted)
    routed = _traffic(now.old + now.halted) if taken else None
    return Step(to=to, text=reason, routed=routed, stop=_ids(now.mine), resume=_ids(now.halted))


def _traffic(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(m.id for m in members if m.process == "web")


def _ids(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(m.id for m in members)


def _deadline_s(now: Situation) -> float:
    if now.state == State.CHECKING:
        return max(DEADLINE_S[State.CHECKING], now.check_deadline_s + 15)
    return DEADLINE_S[now.state]


def _overdue(now: Situation) -> str:
    limit = f"{_deadline_s(now):g} s"
    if now.silent_hosts:
        return f"Host {', '.join(now.silent_hosts)} has not reported; gave up {now.state} after {limit}."
    if now.state == State.SWITCHING:
        return f"The ingress did not take the new route within {limit}."
    late = [
        f"{m.id} is {m.observed}" + (f" ({m.reason})" if m.reason else "") for m in now.mine if m.observed != "healthy"
    ]
    return f"Not done {now.state} within {limit}: {'; '.join(late) or 'nothing was seen'}."
