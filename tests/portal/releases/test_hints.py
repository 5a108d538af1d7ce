"""Hints: a host's queue is told, pages are told, and Redis never holds a secret."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from portal import hints
from portal.accounts.actor import Actor
from portal.config import config
from portal.hosting.actions import set_env
from portal.hosting.models import App
from portal.images.models import Image
from portal.releases import actions
from portal.releases.models import Deployment
from tests.portal.host import HostDriver
from worker.protocol import TASK_CONVERGE, host_queue

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(valkey: str) -> redis.Redis:
    """An empty Redis."""
    client = redis.Redis.from_url(valkey)
    client.flushall()
    return client


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition came true: hints are sent by another thread."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_deployment_puts_a_hint_without_arguments_on_the_hosts_queue(
    server: redis.Redis, app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    queue = host_queue("local")
    assert until(lambda: server.llen(queue) > 0)  # type: ignore[operator]
    message = server.lindex(queue, 0)
    assert isinstance(message, bytes)
    assert TASK_CONVERGE.encode() in message
    assert app.slug.encode() not in message


def test_no_secret_of_an_app_is_ever_in_redis(
    server: redis.Redis, app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    monitor = server.pubsub()  # type: ignore[no-untyped-call]
    monitor.psubscribe("*")
    set_env(acting, app, {"SECRET": "hunter2-hunter2"})
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    assert host.wanted()[0].environment["SECRET"] == "hunter2-hunter2"
    assert until(lambda: server.llen(host_queue("local")) > 0)  # type: ignore[operator]
    seen = []
    while (message := monitor.get_message(timeout=0.3)) is not None:
        seen.append(str(message))
    assert any("deployment:" in message for message in seen)
    for key in server.scan_iter():
        seen.append(str(server.dump(key)))
    assert not [text for text in seen if "hunter2" in text]


def test_pages_of_the_app_are_told_through_the_channel_layer(
    server: redis.Redis, app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    monitor = server.pubsub()  # type: ignore[no-untyped-call]
    monitor.psubscribe(f"*app.{app.pk}")
    monitor.get_message(timeout=1)
    actions.deploy(acting, app, make_image(app))
    message = monitor.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    assert b"deployment" in message["data"]


def test_nothing_is_told_of_a_transaction_that_is_rolled_back(
    server: redis.Redis, app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    from django.db import transaction

    image = make_image(app)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        actions.deploy(acting, app, image)
        raise ZeroDivisionError
    assert not Deployment.objects.exists()
    hints.host_changed("other")
    assert until(lambda: server.llen(host_queue("other")) > 0)  # type: ignore[operator]
    assert server.llen(host_queue("local")) == 0


def test_with_redis_gone_actions_work_and_only_the_hint_is_lost(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    gone = dataclasses.replace(config(), redis_url="unix:///nowhere/valkey.sock")
    monkeypatch.setattr(hints, "config", lambda: gone)
    monkeypatch.setattr(hints, "_publishers", {})
    deployment = actions.deploy(acting, app, make_image(app))
    host.carry_out()
    deployment.refresh_from_db()
    assert deployment.state == "live"
