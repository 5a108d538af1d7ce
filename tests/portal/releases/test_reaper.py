"""What stops moving is moved: deadlines, silent hosts, drains; and every hint may be lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.fleet.models import Host
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import Plan
from portal.releases import actions
from portal.releases.models import Deployment, Instance
from portal.releases.rollout import DEADLINE_S
from portal.releases.tasks import reap, tidy
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


def age(deployment: Deployment, seconds: float) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(state_since=timezone.now() - dt.timedelta(seconds=seconds))


@pytest.mark.parametrize(("seen", "state"), [("absent", "pulling"), ("creating", "starting"), ("checking", "checking")])
def test_a_deployment_that_stops_moving_fails_at_its_deadline_and_not_before(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image], seen: str, state: str
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    host.fetch()
    host.see(host.wanted()[0].id, seen)  # type: ignore[arg-type]
    host.report()
    deployment.refresh_from_db()
    assert deployment.state == state
    age(deployment, DEADLINE_S[state] - 5)
    reap()
    deployment.refresh_from_db()
    assert deployment.state == state
    age(deployment, DEADLINE_S[state] + 1)
    reap()
    deployment.refresh_from_db()
    assert deployment.state == "failed"
    assert "within" in deployment.reason
    assert Instance.objects.get(app=app).wanted == "removed"


def test_an_ingress_that_never_takes_the_route_fails_the_deployment(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    host.fetch()
    host.see(host.wanted()[0].id, "healthy")
    host.takes_routes = False
    host.report()
    age(deployment, DEADLINE_S["switching"] + 1)
    reap()
    deployment.refresh_from_db()
    assert deployment.state == "failed"
    assert "ingress did not take the new route within 30 s" in deployment.reason


def test_a_host_that_fell_silent_is_the_reason_that_is_shown(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    Host.objects.update(seen_at=timezone.now() - dt.timedelta(minutes=20))
    age(deployment, DEADLINE_S["pulling"] + 1)
    reap()
    deployment.refresh_from_db()
    assert "Host local has not reported" in deployment.reason


def test_a_drain_that_does_not_end_is_ended(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    actions.stop(acting, app)
    assert Instance.objects.get(app=app).wanted == "draining"
    reap()
    assert Instance.objects.get(app=app).wanted == "draining"
    Instance.objects.update(drain_until=timezone.now() - dt.timedelta(seconds=1))
    reap()
    assert Instance.objects.get(app=app).wanted == "removed"


def test_the_reaper_goes_on_where_a_lost_step_left_off(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    Instance.objects.update(observed="healthy")  # written, and the process died before it advanced
    reap()
    deployment.refresh_from_db()
    assert deployment.state == "switching"


def test_running_it_twice_changes_nothing_more(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    reap()
    before = list(deployment.events.values_list("pk", flat=True))
    reap()
    assert list(deployment.events.values_list("pk", flat=True)) == before


def test_releases_beyond_what_the_plan_keeps_are_forgotten_but_never_the_one_that_runs(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    for name in ("one", "two", "three", "four"):
        actions.deploy(acting, app, make_image(app, name))
        host.carry_out()
    actions.rollback(acting, app, 1)
    host.carry_out()
    Plan.objects.update(releases_kept=2)
    tidy()
    assert list(app.releases.values_list("number", flat=True)) == [4, 3, 1]
    assert host.wanted()[0].release == 1
    tidy()
    assert app.releases.count() == 3
