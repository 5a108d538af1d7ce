"""The control queue: retries, the reaper, and beat as a thread of the worker. Hosts are hinted through the same broker."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
# Django's checks read every address of the portal, and with them pages, forms and the API: memory that no task uses.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

from celery import Celery, bootsteps
from celery.beat import EmbeddedService
from kombu import Queue

from portal.config import config
from worker.protocol import CONTROL_QUEUE


def broker_url(redis_url: str) -> str:
    """redis-py's `unix:///path` as kombu spells it; other URLs are the same for both."""
    return "redis+socket://" + redis_url.removeprefix("unix://") if redis_url.startswith("unix://") else redis_url


app = Celery("portal", broker=broker_url(config().redis_url))
app.conf.update(
    task_default_queue=CONTROL_QUEUE,
    task_queues=[Queue(CONTROL_QUEUE)],
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2},
    broker_connection_timeout=2,
    enable_utc=True,
    timezone="UTC",
    beat_schedule={
        "reap": {"task": "releases.reap", "schedule": 5.0, "options": {"expires": 5}},
        "tidy": {"task": "releases.tidy", "schedule": 3600.0, "options": {"expires": 3600}},
        "relieve": {"task": "releases.relieve", "schedule": 10.0, "options": {"expires": 10}},
        "minutes": {"task": "telemetry.roll", "schedule": 60.0, "options": {"expires": 60}},
        "forget": {"task": "telemetry.sweep", "schedule": 3600.0, "options": {"expires": 3600}},
        "uploads": {"task": "images.sweep_uploads", "schedule": 600.0, "options": {"expires": 600}},
        "collect": {"task": "images.collect", "schedule": 3600.0, "options": {"expires": 3600}},
        "backups": {"task": "volumes.begin_due", "schedule": 60.0, "options": {"expires": 60}},
        "chunks": {"task": "volumes.collect", "schedule": 3600.0, "options": {"expires": 3600}},
    },
    beat_schedule_filename=str(config().portal_dir / "beat"),
)
app.autodiscover_tasks(["portal.accounts", "portal.releases", "portal.telemetry", "portal.images", "portal.volumes"])


class BeatThread(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types for bootsteps
    """Beat inside the worker: `-B` would fork another 55 MB process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.service: Any = None

    def start(self, worker: Any) -> None:
        """Begin to send due tasks."""
        self.service = EmbeddedService(worker.app, thread=True)
        self.service.start()

    def stop(self, worker: Any) -> None:
        """Stop sending and write the schedule."""
        if self.service is not None:
            self.service.stop()


app.steps["worker"].add(BeatThread)
