"""Two who take from one quota at once, and two who move one deployment at once. Run on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connections

from portal.accounts.actor import Actor
from portal.errors import OverQuota, PortalError
from portal.hosting.actions import create_app
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import TeamQuota
from portal.releases import actions
from portal.releases.advance import advance
from portal.releases.models import Deployment, DeploymentEvent, Instance
from portal.releases.rollout import ACTIVE
from portal.releases.tasks import reap
from tests.conftest import People
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Each call in a thread of its own, begun together; its result or its PortalError, in order."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], Any]) -> None:
        barrier.wait(10)
        try:
            results[place] = call()
        except (PortalError, DatabaseError) as error:
            results[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "two of them wait for each other"
    return results


@pytest.mark.parametrize("round_", range(4))
def test_of_two_takers_of_the_last_app_one_is_refused(
    people: People, plans: object, acting: Actor, round_: int
) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"apps": 1})
    results = at_once(
        lambda: create_app(acting, people.team, slug="first"), lambda: create_app(acting, people.team, slug="second")
    )
    assert sorted(type(result).__name__ for result in results) == ["App", "OverQuota"]
    assert App.objects.filter(team=people.team).count() == 1


def test_of_two_who_scale_up_to_the_limit_one_is_refused(people: People, plans: dict[str, Any], acting: Actor) -> None:
    apps = [create_app(acting, people.team, slug=slug, plan=plans["nano"]) for slug in ("one", "two")]
    TeamQuota.objects.filter(team=people.team).update(instances=3)
    results = at_once(*(lambda app=app: actions.scale(acting, app, {"web": 2}) for app in apps))
    assert sum(isinstance(result, OverQuota) for result in results) == 1


def test_of_two_deployments_begun_at_once_one_replaces_the_other(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    images = [make_image(app, "one"), make_image(app, "two")]
    at_once(*(lambda image=image: actions.deploy(acting, app, image) for image in images))
    states = dict(Deployment.objects.filter(app=app).values_list("number", "state"))
    assert states == {1: "cancelled", 2: "pulling"}
    host.carry_out()
    assert Deployment.objects.get(app=app, number=2).state == "live"
    assert Instance.objects.filter(app=app, wanted="running").count() == 1


def test_two_who_advance_one_deployment_do_each_step_once(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    Instance.objects.filter(app=app).update(observed="healthy")
    at_once(*(lambda: advance(deployment.pk) for _ in range(4)))
    steps = list(DeploymentEvent.objects.filter(deployment=deployment).values_list("state", flat=True))
    assert steps == ["queued", "pulling", "starting", "checking", "switching"]


def test_the_same_app_name_taken_twice_at_once_exists_once(people: People, plans: object, acting: Actor) -> None:
    results = at_once(*(lambda: create_app(acting, people.team, slug="same") for _ in range(2)))
    assert sorted(type(result).__name__ for result in results) == ["App", "Conflict"]


def test_reports_deployments_stops_and_the_reaper_at_once_never_wait_for_each_other(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    image = make_image(app)
    actions.scale(acting, app, {"web": 3})

    def report() -> None:
        driver = HostDriver(name=host.name, token=host.token)
        for _ in range(6):
            driver.carry_out()

    def many(action: Callable[[], Any]) -> Callable[[], list[Any]]:
        return lambda: [action() for _ in range(4)]

    results = at_once(
        report,
        many(lambda: actions.deploy(acting, app, image)),
        many(lambda: actions.restart(acting, app)),
        many(lambda: actions.stop(acting, app)),
        many(reap),
    )
    assert [result for result in results if isinstance(result, DatabaseError)] == []
    actions.deploy(acting, app, image)
    host.carry_out()
    host.carry_out()
    assert Deployment.objects.filter(app=app).first().state == "live"  # type: ignore[union-attr]
    assert len(host.routed("hello")) == 3
    assert Deployment.objects.filter(app=app, state__in=ACTIVE).count() == 0
