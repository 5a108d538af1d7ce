"""The difference, by the hundred, with no host: worlds are made up, steps are carried out on paper."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from worker import difference as d
from worker.container import Container
from worker.protocol import DesiredInstance, ImageRef, Limits, VolumeMount, Wanted

IDS = ("web-1", "web-2", "web-3", "web-4")
DIGEST = "sha256:" + "a" * 64


def instance(name: str = "web-1", **fields: object) -> DesiredInstance:
    """A desired instance with only what the difference reads."""
    base = DesiredInstance(
        id=name,
        app="hello",
        team="acme",
        release=1,
        process="web",
        ordinal=1,
        image=ImageRef(repository="r/acme/hello", digest=DIGEST),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def container(name: str = "web-1", state: str = "running", **fields: object) -> Container:
    """A container of ours."""
    return replace(Container(id=f"id-{name}", name=name, state=state, app="hello"), **fields)  # type: ignore[arg-type]


def known(*judged: str, **fields: object) -> d.Known:
    """Knowledge in which the judged instances have the default limits and no restart policy."""
    base = d.Known(judged=frozenset(judged), applied={name: (Limits(), False) for name in IDS})
    return replace(base, **fields)  # type: ignore[arg-type]


def steps_of(found: list[d.Step]) -> list[str]:
    return [type(step).__name__ for step in found]


def test_an_instance_without_a_container_is_brought_up() -> None:
    assert d.difference([instance()], [], known()) == [d.BringUp(instance())]


def test_a_healthy_instance_as_wanted_needs_nothing() -> None:
    assert d.difference([instance()], [container()], known("web-1")) == []


def test_a_container_nobody_wants_is_removed() -> None:
    assert d.difference([], [container("old-1")], known()) == [d.Remove(container("old-1"))]


def test_an_instance_that_is_being_worked_on_is_left_alone() -> None:
    assert d.difference([instance(wanted="draining")], [container()], known(busy=frozenset({"web-1"}))) == []
    assert d.difference([], [container()], known(busy=frozenset({"web-1"}))) == []


def test_a_failure_before_it_was_live_is_not_tried_again() -> None:
    gave_up = known(gave_up=frozenset({"web-1"}))
    assert d.difference([instance()], [], gave_up) == []
    assert d.difference([instance()], [container(state="exited")], gave_up) == []
    assert d.difference([instance()], [container(state="created")], gave_up) == []


def test_a_container_left_created_by_a_crash_is_started() -> None:
    assert steps_of(d.difference([instance()], [container(state="created")], known())) == ["Start"]


def test_a_stopped_app_that_is_wanted_again_is_started() -> None:
    assert steps_of(d.difference([instance()], [container(state="exited")], known())) == ["Start"]


def test_the_engine_alone_restarts_what_crashes() -> None:
    live = instance(restart=True)
    applied = {"web-1": (Limits(), True)}
    assert d.difference([live], [container(state="restarting")], known(applied=applied)) == []


def test_a_running_container_of_unknown_health_is_checked() -> None:
    assert steps_of(d.difference([instance()], [container()], known())) == ["Check"]


def test_new_limits_are_set_on_the_running_container() -> None:
    wanted = instance(limits=Limits(memory_bytes=1 << 30))
    assert d.difference([wanted], [container()], known("web-1")) == [d.Update(wanted, container())]


def test_becoming_live_switches_the_restart_policy_on() -> None:
    assert steps_of(d.difference([instance(restart=True)], [container()], known("web-1"))) == ["Update"]


def test_limits_are_set_before_the_health_of_a_new_worker_is_known() -> None:
    assert steps_of(d.difference([instance()], [container()], known(applied={}))) == ["Update", "Check"]


def test_draining_and_stopping_and_removing() -> None:
    here = [container()]
    assert d.difference([instance(wanted="draining", grace_s=7)], here, known("web-1")) == [
        d.Drain(instance(wanted="draining", grace_s=7), here[0])
    ]
    assert steps_of(d.difference([instance(wanted="stopped")], here, known("web-1"))) == ["Stop"]
    assert steps_of(d.difference([instance(wanted="stopped")], [container(state="exited")], known())) == []
    assert d.difference([instance(wanted="removed", grace_s=3)], here, known()) == [d.Remove(here[0], 3)]


def test_what_is_gone_needs_neither_draining_nor_removing() -> None:
    for wanted in ("draining", "stopped", "removed"):
        assert d.difference([instance(wanted=wanted)], [], known()) == []


def test_a_new_restart_generation_restarts_once() -> None:
    wanted = instance(restart_generation=2)
    assert steps_of(d.difference([wanted], [container(restart_generation=1)], known("web-1"))) == ["Restart"]
    assert d.difference([wanted], [container(restart_generation=2)], known("web-1")) == []
    assert d.difference([wanted], [container(restart_generation=1)], known("web-1", restarted={"web-1": 2})) == []


def test_a_container_that_is_being_removed_is_left_to_the_engine() -> None:
    assert d.difference([instance()], [container(state="removing")], known()) == []
    assert d.difference([], [container(state="removing")], known()) == []


limits = st.builds(Limits, cpu_millicores=st.sampled_from((0, 250, 1000)), memory_bytes=st.sampled_from((0, 1 << 28)))
wanted_states: st.SearchStrategy[Wanted] = st.sampled_from(("running", "draining", "stopped", "removed"))
instances = st.lists(
    st.builds(
        instance,
        st.sampled_from(IDS),
        wanted=wanted_states,
        restart=st.booleans(),
        limits=limits,
        restart_generation=st.integers(0, 3),
    ),
    unique_by=lambda i: i.id,
)
containers = st.lists(
    st.builds(
        container,
        st.sampled_from((*IDS, "old-1", "old-2")),
        st.sampled_from(("created", "running", "paused", "restarting", "exited", "dead")),
        restart_generation=st.integers(0, 3),
    ),
    unique_by=lambda c: c.name,
)


@dataclass
class World:
    """A host on paper."""

    containers: dict[str, Container]
    judged: set[str] = field(default_factory=set)
    gave_up: set[str] = field(default_factory=set)
    applied: dict[str, d.Change] = field(default_factory=dict)
    restarted: dict[str, int] = field(default_factory=dict)

    def known(self) -> d.Known:
        return d.Known(
            judged=frozenset(self.judged),
            gave_up=frozenset(self.gave_up),
            applied=dict(self.applied),
            restarted=dict(self.restarted),
        )

    def carry_out(self, step: d.Step) -> None:
        name = d.name_of(step)
        match step:
            case d.BringUp(i):
                self.containers[name] = container(name, restart_generation=i.restart_generation)
                self.applied[name] = (i.limits, False)
                self.judged.add(name)
            case d.Start() | d.Check():
                self.containers[name] = replace(step.container, state="running")
                self.judged.add(name)
            case d.Restart(i):
                self.containers[name] = replace(step.container, state="running")
                self.restarted[name] = i.restart_generation
                self.judged.add(name)
            case d.Update(i):
                self.applied[name] = (i.limits, i.restart)
            case d.Stop():
                self.containers[name] = replace(step.container, state="exited")
            case d.Drain() | d.Remove():
                del self.containers[name]


def converge(desired: list[DesiredInstance], world: World) -> int:
    """Rounds until nothing is left to do."""
    for rounds in range(6):
        steps = d.difference(desired, world.containers.values(), world.known())
        if not steps:
            return rounds
        for step in steps:
            world.carry_out(step)
    raise AssertionError(f"it does not come to rest: {steps}")


@given(instances, containers)
def test_converging_comes_to_rest_and_then_is_a_no_op(desired: list[DesiredInstance], here: list[Container]) -> None:
    world = World({c.name: c for c in here})
    assert converge(desired, world) <= 3
    assert d.difference(desired, world.containers.values(), world.known()) == []


@given(instances, containers)
def test_after_converging_the_host_is_as_desired(desired: list[DesiredInstance], here: list[Container]) -> None:
    world = World({c.name: c for c in here})
    converge(desired, world)
    wanted = {i.id: i for i in desired}
    assert set(world.containers) <= set(wanted)
    for name, i in wanted.items():
        found = world.containers.get(name)
        match i.wanted:
            case "running":
                assert found is not None
                assert found.state in ("running", "paused", "restarting")
                assert world.applied[name] == (i.limits, i.restart)
            case "stopped":
                assert found is None or found.state not in d.LIVE_STATES
            case _:
                assert found is None


@given(instances, containers, st.sets(st.sampled_from((*IDS, "old-1"))))
def test_no_step_is_ever_about_an_instance_that_is_busy_or_unknown(
    desired: list[DesiredInstance], here: list[Container], busy: set[str]
) -> None:
    names = {d.name_of(s) for s in d.difference(desired, here, d.Known(busy=frozenset(busy)))}
    assert names.isdisjoint(busy)
    assert names <= {i.id for i in desired} | {c.name for c in here}


@given(instances, containers)
def test_an_instance_gets_one_step_and_at_most_an_update_beside_it(
    desired: list[DesiredInstance], here: list[Container]
) -> None:
    found = d.difference(desired, here, d.Known())
    for name in {d.name_of(s) for s in found}:
        others = [s for s in found if d.name_of(s) == name and not isinstance(s, d.Update)]
        assert len(others) <= 1


@given(instances, st.randoms())
def test_a_listed_container_without_our_label_is_not_seen_at_all(
    desired: list[DesiredInstance], random: object
) -> None:
    row = {"Id": "x", "Names": ["/web-1"], "State": "running", "Labels": {"maintainer": "somebody"}}
    assert Container.from_listing(row) is None
    assert Container.from_listing(row | {"Labels": None}) is None


def test_an_only_writer_waits_for_the_one_before_and_readers_do_not() -> None:
    mount = VolumeMount(name="v", path="/data", exclusive=True)
    new, old = container("web-2", "created"), container("web-1", writes=frozenset({"v"}))
    known_ = known("web-1")
    wanted = [instance("web-1", wanted="stopped"), instance("web-2", volumes=(mount,))]
    steps = d.difference(wanted, [old, new], known_)
    assert [type(step) for step in steps if d.name_of(step) == "web-2"] == []
    assert d.Stop(wanted[0], old) in steps
    gone = replace(old, state="exited")
    assert d.Start(wanted[1], new) in d.difference(wanted, [gone, new], known_)
    shared = [wanted[0], instance("web-2", volumes=(replace(mount, exclusive=False),))]
    assert d.Start(shared[1], new) in d.difference(shared, [old, new], known_)
    assert d.waits_for(wanted[1], d.writers([replace(old, writes=frozenset({"other"}))])) == ""
