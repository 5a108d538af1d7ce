"""What has to be done on a host so that it becomes what is desired. Pure: nothing here touches anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from worker.container import Container
from worker.protocol import DesiredInstance, Limits

type Change = tuple[Limits, bool]  # what `update` last set: limits, restart policy on

LIVE_STATES = frozenset({"running", "paused", "restarting"})


@dataclass(frozen=True, slots=True)
class BringUp:
    """No container: pull what is missing, create, start, wait until it is healthy."""

    instance: DesiredInstance


@dataclass(frozen=True, slots=True)
class Start:
    """A container without a process that should have one: start, wait until it is healthy."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Check:
    """A process whose health nobody knows (after a restart of it or of this worker): wait until it is healthy."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop and start once, for a new restart generation."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Update:
    """Set limits and restart policy on the container as it runs."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Drain:
    """Out of the route, wait for its last sessions, stop with grace, remove."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop with grace and keep the container."""

    instance: DesiredInstance
    container: Container


@dataclass(frozen=True, slots=True)
class Remove:
    """A container of ours that is not wanted any more: stop and remove."""

    container: Container
    grace_s: int = 10


type Step = BringUp | Start | Check | Restart | Update | Drain | Stop | Remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this worker knows beyond the engine's list, by instance id."""

    busy: frozenset[str] = frozenset()  # a step is under way: hands off
    judged: frozenset[str] = frozenset()  # a running container whose health is known
    gave_up: frozenset[str] = frozenset()  # a failure not to be tried again now
    applied: Mapping[str, Change] = field(default_factory=dict)
    restarted: Mapping[str, int] = field(default_factory=dict)  # restart generation carried out


def difference(desired: Iterable[DesiredInstance], containers: Iterable[Container], known: Known) -> list[Step]:
    """Steps from what is to what should be. At most one step for each instance and call, except that `Update` may come along.

    `containers` are ours alone (label moorage.app). When all steps are carried out and known, the next call returns none.
    """
    by_name = {c.name: c for c in containers}
    held = writers(by_name.values())
    steps: list[Step] = []
    named = set()
    for instance in desired:
        named.add(instance.id)
        if instance.id not in known.busy:
            steps += [
                step
                for step in _for_instance(instance, by_name.get(instance.id), known)
                if not (isinstance(step, Start | Restart) and waits_for(instance, held))
            ]
    steps += [
        Remove(c)
        for name, c in by_name.items()
        if name not in named and name not in known.busy and c.state != "removing"
    ]
    return steps


def writers(containers: Iterable[Container]) -> dict[str, set[str]]:
    """Names of living containers by the volume they write to."""
    found: dict[str, set[str]] = {}
    for container in containers:
        for volume in container.writes if container.state in LIVE_STATES else ():
            found.setdefault(volume, set()).add(container.name)
    return found


def waits_for(instance: DesiredInstance, held: Mapping[str, set[str]]) -> str:
    """The living container that has a volume of which this instance wants to be the only writer; "" when none has."""
    for volume in instance.volumes:
        others = held.get(volume.name, set()) - {instance.id} if volume.exclusive else set()
        if others:
            return min(others)
    return ""


def _for_instance(instance: DesiredInstance, container: Container | None, known: Known) -> list[Step]:
    if container is None or container.state == "removing":
        absent = container is None and instance.wanted == "running" and instance.id not in known.gave_up
        return [BringUp(instance)] if absent else []
    if instance.wanted == "removed":
        return [Remove(container, instance.grace_s)]
    if instance.wanted == "draining":
        return [Drain(instance, container)]
    if instance.wanted == "stopped":
        return [Stop(instance, container)] if container.state in LIVE_STATES else []
    return _for_running(instance, container, known)


def _for_running(instance: DesiredInstance, container: Container, known: Known) -> list[Step]:
    steps: list[Step] = []
    if known.applied.get(instance.id) != (instance.limits, instance.restart):
        steps.append(Update(instance, container))
    done = max(container.restart_generation, known.restarted.get(instance.id, 0))
    if instance.restart_generation > done:
        return [*steps, Restart(instance, container)]
    if container.state in ("created", "exited", "dead"):
        # A crash before the deployment is live is given up; after it the engine restarts, and only what it leaves lying is ours.
        return [*steps, Start(instance, container)] if instance.id not in known.gave_up else steps
    if container.state == "running" and instance.id not in known.judged:
        steps.append(Check(instance, container))
    return steps


def name_of(step: Step) -> str:
    """The instance a step is about."""
    return step.container.name if isinstance(step, Remove) else step.instance.id
