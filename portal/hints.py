"""Hints: messages that may be lost or come twice. To pages by the channel layer, to waiting calls by pub/sub, to hosts by Celery.

All are sent from one background thread with a loop of its own, so that no action waits for Redis.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

import redis
import redis.asyncio
from celery.exceptions import CeleryError
from channels.layers import get_channel_layer
from django.db import transaction
from kombu.exceptions import KombuError

from portal.config import config
from worker.protocol import CONTROL_QUEUE, TASK_CONVERGE, deployment_channel, host_queue

TASK_PASSWORD_ASKED = "accounts.password_asked"
TASK_MAIL_LINK = "accounts.mail_password_link"

log = logging.getLogger(__name__)
_lost = (OSError, redis.RedisError, KombuError, CeleryError)


class _Sender:
    """A thread with an event loop, made at first use in each process (a fork does not carry threads over)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="hints", daemon=True).start()
            return self._loop


_sender = _Sender()


async def _quietly(what: str, sending: Coroutine[Any, Any, Any]) -> None:
    try:
        await sending
    except _lost as error:
        log.warning("hint lost (%s): %s", what, error)


def _send(what: str, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    asyncio.run_coroutine_threadsafe(_quietly(what, make()), _sender.loop())


def _after_commit(function: Callable[[], None]) -> None:
    transaction.on_commit(function)


def page_changed(app_id: int, what: str) -> None:
    """Tell open pages of an app that `what` (deployment, instances, limits, …) changed, once the transaction is in."""
    message = {"type": "changed", "what": what}
    _after_commit(lambda: _send("page", lambda: _group_send(f"app.{app_id}", message)))


def access_changed(team_id: int) -> None:
    """Tell open pages of a team's apps to look again whether their reader still may, once the transaction is in."""
    message = {"type": "changed", "what": "access"}
    _after_commit(lambda: _send("access", lambda: _group_send(f"team.{team_id}", message)))


async def _group_send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is not None:
        await layer.group_send(group, message)


def deployment_changed(deployment_id: int, app_id: int, state: str) -> None:
    """Wake calls that wait for a deployment, and pages of its app, once the transaction is in."""
    payload = json.dumps({"state": state})
    _after_commit(lambda: _send("deployment", lambda: _publish(deployment_channel(deployment_id), payload)))
    page_changed(app_id, "deployment")


_publishers: dict[int, Any] = {}


async def _publish(channel: str, payload: str) -> None:
    pid = os.getpid()
    if pid not in _publishers:
        _publishers.clear()
        _publishers[pid] = redis.asyncio.Redis.from_url(config().redis_url, socket_timeout=5)
    await _publishers[pid].publish(channel, payload)


def host_changed(name: str) -> None:
    """Tell a host's worker to fetch its desired state, once the transaction is in."""
    _after_commit(lambda: _send("host", lambda: asyncio.to_thread(_hint_host, name)))


def password_asked(who: str) -> None:
    """Have the control worker look whose name or address this is, and mail a link; a lost one is asked for again."""
    _control(TASK_PASSWORD_ASKED, who)


def mail_password_link(user_id: int) -> None:
    """Have the control worker mail a link, once the transaction is in; a lost one is asked for again."""
    _control(TASK_MAIL_LINK, user_id)


def _control(task: str, argument: str | int) -> None:
    _after_commit(lambda: _send(task, lambda: asyncio.to_thread(_send_control, task, argument)))


def prepare() -> None:
    """Load what sending a hint to a host needs: 48 MB that gunicorn's workers share when it is done before the fork."""
    import_module("kombu.transport.redis")
    _ = _celery().amqp


def _celery() -> Any:
    return import_module("portal.celery").app  # not at the top: commands and tests that send nothing need not load it


def _hint_host(name: str) -> None:
    _celery().send_task(TASK_CONVERGE, queue=host_queue(name), ignore_result=True, retry=False, expires=60)


def _send_control(task: str, argument: str | int) -> None:
    _celery().send_task(task, [argument], queue=CONTROL_QUEUE, ignore_result=True, retry=False, expires=600)
