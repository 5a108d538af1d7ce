"""The Celery application of one host: hears hints on queue `host.<name>` and keeps the convergence going.

`celery -A worker.app worker -Q host.<name> -P threads -c 2`. The convergence starts before the broker is reached and goes on
without it: hints only make it sooner.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

from celery import Celery
from celery.signals import worker_init

from worker.config import config
from worker.converge import Converger
from worker.engine import Engine
from worker.ingress import gateway
from worker.portal import Portal
from worker.protocol import TASK_CONVERGE, host_queue

log = logging.getLogger(__name__)

TASK_ALIVE = "worker.alive"
LOOK_S = 30.0
SILENT_S = 120.0

_config = config()
# No fixups: with DJANGO_SETTINGS_MODULE in the environment Celery would load Django, which is 30 MB and not our business.
app = Celery("moorage-worker", broker=_config.redis_url.replace("unix://", "redis+socket://", 1), fixups=[])
app.conf.update(
    task_ignore_result=True,
    result_backend=None,
    task_default_queue=host_queue(_config.host),
    task_create_missing_queues=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"visibility_timeout": 600, "socket_keepalive": True},
    imports=("worker.tasks",),
)


class Host:
    """The convergence in its thread, and the watch over whether Celery still consumes."""

    def __init__(self) -> None:
        self._converger: Converger | None = None
        self.heard = time.monotonic()

    def start(self) -> None:
        """Start both threads."""
        threading.Thread(target=self._converge, name="converge", daemon=True).start()
        threading.Thread(target=self._guard, name="guard", daemon=True).start()

    def hint(self) -> None:
        """A hint came."""
        self.heard_now()
        if self._converger:
            self._converger.hint()

    def heard_now(self) -> None:
        """A task arrived."""
        self.heard = time.monotonic()

    def _converge(self) -> None:
        try:
            self._converger = Converger(_config, Engine(_config.engine_socket), Portal(_config), gateway(_config))
            asyncio.run(self._converger.run())
        except Exception:
            log.exception("The convergence has ended; this worker starts anew.")
        os._exit(70)  # a worker that does not converge is of no use; its supervisor starts another

    def _guard(self) -> None:
        """Celery can stop consuming after its broker comes back. Send a task to ourselves; when none arrives, start anew."""
        while True:
            time.sleep(LOOK_S)
            try:
                app.send_task(TASK_ALIVE, queue=host_queue(_config.host), expires=LOOK_S)
            except Exception as error:  # noqa: BLE001  (whatever the broker's client raises: it is away, which is not our fault)
                log.debug("The broker is away: %s", error)
                self.heard = time.monotonic()
                continue
            if time.monotonic() - self.heard > SILENT_S:
                log.error("No task has arrived for %d s although Redis takes them; this worker starts anew.", SILENT_S)
                os._exit(70)


host = Host()


@worker_init.connect  # type: ignore[untyped-decorator]
def _begin(**_: Any) -> None:
    logging.getLogger("worker").setLevel(logging.INFO)
    host.start()


__all__ = ["TASK_ALIVE", "TASK_CONVERGE", "app", "host"]
