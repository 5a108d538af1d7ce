"""Changing plans: what reaches a running container, and what is told before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from portal.accounts.actor import Actor
from portal.audit.models import Entry
from portal.errors import Forbidden, Invalid, OverQuota
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.actions import create_plan, retire_plan, set_quota
from portal.plans.models import Plan
from portal.releases import actions
from tests.conftest import People
from tests.portal.host import HostDriver
from worker.protocol import MetricSample

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def running(app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]) -> HostDriver:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    return host


@pytest.fixture
def boss(people: People) -> Actor:
    return Actor(user=people.operator, door="page")


def sample(**more: int) -> MetricSample:
    counters = dict.fromkeys(
        ("cpu_ns", "throttled_ns", "net_in_total", "net_out_total", "disk_read_total", "disk_write_total"), 0
    )
    usual = {"memory_bytes": 1, "memory_limit_bytes": 1, "disk_used_bytes": 0, "pids": 1, "cpu_limit_millicores": 500}
    return MetricSample(at=0.0, **{**counters, **usual, **more})


def test_a_changed_plan_reaches_the_running_container_without_a_new_one(running: HostDriver, boss: Actor) -> None:
    (before,) = running.wanted()
    changed = actions.change_plan(
        boss, Plan.objects.get(slug="small"), {"memory_bytes": 700 << 20, "cpu_millicores": 750}
    )
    assert changed.version == 2
    answer = running.report()
    assert answer["desired"] is not None
    (after,) = running.wanted()
    assert after.id == before.id
    assert (after.limits.memory_bytes, after.limits.cpu_millicores) == (700 << 20, 750)
    entry = Entry.objects.get(verb="change", object_kind="plan")
    assert entry.details["before"]["memory_bytes"] == 512 << 20


def test_changing_to_the_same_values_changes_nothing(running: HostDriver, boss: Actor) -> None:
    plan = Plan.objects.get(slug="small")
    assert actions.change_plan(boss, plan, {"memory_bytes": plan.memory_bytes}).version == 1
    assert running.report()["desired"] is None


def test_an_app_moves_to_another_plan_live(running: HostDriver, acting: Actor, app: App) -> None:
    actions.move_to_plan(acting, app, Plan.objects.get(slug="large"))
    running.report()
    assert running.wanted()[0].limits.memory_bytes == 2 << 30


def test_moving_over_the_quota_is_refused_with_figures(
    people: People, running: HostDriver, acting: Actor, boss: Actor, app: App
) -> None:
    set_quota(boss, people.team, memory_bytes=1 << 30)
    with pytest.raises(OverQuota, match="memory: 0 B of 1 GB used, 2 GB more wanted"):
        actions.move_to_plan(acting, app, Plan.objects.get(slug="large"))


def test_effects_name_each_instance_with_its_figures_before_anything_is_saved(running: HostDriver) -> None:
    plan = Plan.objects.get(slug="small")
    (instance,) = running.wanted()
    latest = {instance.id: sample(memory_bytes=300 << 20, pids=50)}
    effects = actions.plan_effects(plan, {"memory_bytes": 256 << 20, "pids": 20}, latest.get)
    assert [effect.breaks for effect in effects] == [True, True]
    assert "uses 300 MB of memory: with 256 MB" in effects[0].sentence
    assert "runs 50 processes: with 20" in effects[1].sentence
    assert Plan.objects.get(slug="small").memory_bytes == 512 << 20
    assert actions.plan_effects(plan, {"memory_bytes": 400 << 20}, latest.get) == []


def test_effects_tell_of_counts_and_quotas(
    people: People, running: HostDriver, acting: Actor, boss: Actor, app: App
) -> None:
    actions.scale(acting, app, {"web": 2})
    running.carry_out()
    set_quota(boss, people.team, memory_bytes=2 << 30)
    plan = Plan.objects.get(slug="small")
    effects = actions.plan_effects(plan, {"instances_max": 1, "memory_bytes": 2 << 30}, lambda name: None)
    assert "has 2 instances, the plan would allow 1" in effects[0].sentence
    assert "Team acme would be over its quota" in effects[1].sentence


def test_only_operators_change_plans_and_quotas(people: People, running: HostDriver, acting: Actor) -> None:
    plan = Plan.objects.get(slug="small")
    for change in (
        lambda: actions.change_plan(acting, plan, {"pids": 100}),
        lambda: create_plan(acting, slug="x", cpu_millicores=100, memory_bytes=1 << 30, disk_bytes=1 << 30),
        lambda: retire_plan(acting, plan),
        lambda: set_quota(acting, people.team, apps=99),
    ):
        with pytest.raises(Forbidden):
            change()


@pytest.mark.parametrize(
    "fields",
    [{"memory_bytes": 10}, {"slug": "other"}, {"pids": -1}, {"pids": "many"}, {"cpu_weight": 20_000}, {"version": 9}],
)
def test_values_that_could_not_run_are_refused(plans: object, boss: Actor, fields: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        actions.change_plan(boss, Plan.objects.get(slug="small"), fields)
