"""Deployments from the action to live, with a host at the HTTP door."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.audit.models import Entry
from portal.errors import Conflict
from portal.hosting.actions import set_env
from portal.hosting.models import App
from portal.images.models import Image
from portal.releases import actions
from portal.releases.models import Deployment, Instance, PastInstance
from portal.telemetry import instances
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


def state(deployment: Deployment) -> str:
    deployment.refresh_from_db()
    return deployment.state


def test_a_deployment_goes_from_queued_to_live_through_reports(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    assert state(deployment) == "pulling"
    (instance,) = (host.fetch() or pytest.fail()).instances
    seen = []
    for step in ("pulling", "creating", "starting", "checking"):
        host.see(instance.id, step)  # type: ignore[arg-type]
        host.report()
        seen.append(state(deployment))
    assert seen == ["pulling", "starting", "starting", "checking"]
    assert host.routed("hello") == ()
    host.see(instance.id, "healthy")
    host.report()
    assert state(deployment) == "switching"
    assert host.routed("hello") == (instance.id,)
    assert host.wanted()[0].restart is False
    host.report()
    assert state(deployment) == "live"
    assert host.wanted()[0].restart is True
    steps = list(deployment.events.values_list("state", flat=True))
    assert steps == ["queued", "pulling", "starting", "checking", "switching", "live"]


def test_desired_carries_port_environment_limits_and_the_image_by_digest(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    set_env(acting, app, {"COLOUR": "green"})
    image = make_image(app)
    actions.deploy(acting, app, image)
    desired = host.fetch()
    assert desired is not None
    (instance,) = desired.instances
    assert (instance.team, instance.app, instance.release, instance.port) == ("acme", "hello", 1, 9000)
    assert instance.environment["COLOUR"] == "green"
    assert instance.environment["PORT"] == "9000"
    assert instance.environment["MOORAGE_INSTANCE"] == instance.id
    assert instance.image.digest == image.digest
    assert instance.image.repository.endswith("/acme/hello")
    assert instance.limits.memory_bytes == app.plan.memory_bytes
    assert {group.path for group in desired.groups} == {"acme", "acme/hello"}
    assert desired.routes[0].names == ("hello.localhost",)


def test_the_generation_is_stable_while_nothing_changes_and_304_is_answered(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    assert host.fetch() is None
    assert host.report()["desired"] is None


def test_the_old_release_serves_until_the_new_one_is_routed_and_then_drains(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (old,) = host.routed("hello")
    second = actions.deploy(acting, app, make_image(app, "two"))
    host.fetch()
    assert host.routed("hello") == (old,)
    (new,) = (i.id for i in host.wanted() if i.id != old)
    host.see(new, "healthy")
    host.takes_routes = False
    host.report()
    assert host.routed("hello") == (new,)
    assert {i.id for i in host.wanted()} == {old, new}, "the old one runs until every ingress has the route"
    host.takes_routes = True
    host.report()
    assert state(second) == "live"
    assert [i.id for i in host.wanted(wanted="draining")] == [old]
    assert Deployment.objects.get(app=app, number=1).state == "superseded"
    del host.seen[old]
    host.report()
    assert not Instance.objects.filter(pk=old).exists()


def test_a_crash_fails_the_deployment_at_once_with_its_reason_and_last_lines_and_the_old_stays(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (old,) = host.routed("hello")
    second = actions.deploy(acting, app, make_image(app, "two"))
    host.fetch()
    (new,) = (i.id for i in host.wanted() if i.id != old)
    host.see(new, "exited", exit_code=3, reason="exited with code 3", last_log=("no config", "bye"))
    host.report()
    assert state(second) == "failed"
    assert "exited with code 3" in second.reason
    assert second.last_log == ["no config", "bye"]
    assert host.routed("hello") == (old,)
    assert [i.id for i in host.wanted()] == [old]
    assert Deployment.objects.get(app=app, number=1).state == "live"


def test_a_second_deployment_replaces_one_under_way(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    first = actions.deploy(acting, app, make_image(app))
    second = actions.deploy(acting, app, make_image(app, "two"))
    assert state(first) == "cancelled"
    assert first.reason == "replaced by deployment 2"
    host.carry_out()
    assert state(second) == "live"
    assert Instance.objects.filter(app=app).count() == 1


def test_a_deployment_that_switches_is_finished_before_the_next_begins(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    first = actions.deploy(acting, app, make_image(app))
    host.fetch()
    host.see(host.wanted()[0].id, "healthy")
    host.report()
    assert state(first) == "switching"
    second = actions.deploy(acting, app, make_image(app, "two"))
    assert state(first) == "switching"
    assert state(second) == "queued"
    host.report()
    assert state(first) == "live"
    assert state(second) == "pulling"
    host.carry_out()
    assert state(first) == "superseded"
    assert state(second) == "live"


def test_cancelling_stops_the_new_and_leaves_the_old(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (old,) = host.routed("hello")
    second = actions.deploy(acting, app, make_image(app, "two"))
    cancelled = actions.cancel(acting, second)
    assert cancelled.state == "cancelled"
    assert "olga" in cancelled.reason
    host.carry_out()
    assert host.routed("hello") == (old,)
    with pytest.raises(Conflict, match="has ended"):
        actions.cancel(acting, second)


def test_cancelling_while_switching_gives_the_old_its_route_back(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (old,) = host.routed("hello")
    second = actions.deploy(acting, app, make_image(app, "two"))
    host.fetch()
    host.see(next(i.id for i in host.wanted() if i.id != old), "healthy")
    host.report()
    assert state(second) == "switching"
    actions.cancel(acting, second)
    host.fetch()
    assert host.routed("hello") == (old,)


def test_rollback_deploys_an_older_release_with_its_own_environment(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    set_env(acting, app, {"V": "1"})
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    set_env(acting, app, {"V": "2"})
    actions.deploy(acting, app, make_image(app, "two"))
    host.carry_out()
    back = actions.rollback(acting, app)
    host.carry_out()
    assert state(back) == "live"
    assert back.release.number == 1
    assert host.wanted()[0].environment["V"] == "1"
    assert Entry.objects.filter(verb="rollback", object_name="hello").exists()


def test_stop_and_start(app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (ran,) = instances.labels(app.pk).items()
    actions.stop(acting, app)
    host.fetch()
    assert host.wanted() == []
    assert host.desired is not None
    assert host.desired.routes[0].page == "stopped"
    host.seen.clear()
    host.report()
    assert not Instance.objects.filter(app=app).exists()
    assert instances.labels(app.pk) == dict([ran])  # its last words can be looked at, as long as its streams stay
    PastInstance.objects.update(gone_at=timezone.now() - PastInstance.KEPT)
    assert instances.names(app.pk) == []
    started = actions.start(acting, app)
    assert started is not None
    host.carry_out()
    assert state(started) == "live"
    assert actions.start(acting, app) is None


def test_restart_replaces_every_instance_without_a_gap(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    before = host.routed("hello")
    actions.restart(acting, app)
    host.fetch()
    assert host.routed("hello") == before
    host.carry_out()
    assert host.routed("hello") != before
    assert len(host.routed("hello")) == 1


def test_scaling_keeps_what_runs_and_adds_or_takes_away(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (first,) = host.routed("hello")
    actions.scale(acting, app, {"web": 3})
    host.carry_out()
    assert len(host.routed("hello")) == 3
    assert first in host.routed("hello")
    actions.scale(acting, app, {"web": 1})
    host.carry_out()
    assert host.routed("hello") == (first,)


def test_a_deleted_app_is_gone_when_its_last_container_is(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    actions.delete_app(acting, app)
    host.report()
    assert App.objects.filter(pk=app.pk).exists(), "its container is still seen"
    host.seen.clear()
    host.report()
    assert not App.objects.filter(pk=app.pk).exists()
    assert host.desired is not None
    assert host.desired.routes == ()


def test_without_a_host_the_deployment_fails_with_the_reason(
    app: App, acting: Actor, make_image: Callable[..., Image]
) -> None:
    deployment = actions.deploy(acting, app, make_image(app))
    assert state(deployment) == "failed"
    assert "No host can take it" in deployment.reason


def test_the_ingress_is_told_what_to_say_for_an_app_that_does_not_serve(
    app: App, acting: Actor, make_image: Callable[..., Image], host: HostDriver
) -> None:
    def page() -> str:
        host.fetch()
        assert host.desired is not None
        return host.desired.routes[0].page

    pages = [page()]
    actions.deploy(acting, app, make_image(app))
    pages.append(page())
    host.see(host.wanted()[0].id, "exited", reason="exited with code 1")
    host.report()
    pages.append(page())
    actions.deploy(acting, app, make_image(app, "two"))
    host.carry_out()
    assert len(host.routed("hello")) == 1
    actions.stop(acting, app)
    pages.append(page())
    assert pages == ["stopped", "starting", "failed", "stopped"]
