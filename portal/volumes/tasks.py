"""What beat starts for volumes; all may run twice."""

from __future__ import annotations

from celery import shared_task

from portal.volumes import backups


@shared_task(name="volumes.begin_due")  # type: ignore[untyped-decorator]  # celery's decorators are untyped
def begin_due() -> int:
    """Every minute: backups that are due."""
    return backups.begin_due()


@shared_task(name="volumes.collect")  # type: ignore[untyped-decorator]
def collect() -> int:
    """Every hour: chunks that no backup needs."""
    return backups.collect()
