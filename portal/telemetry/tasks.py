"""What beat starts for telemetry; all may run twice."""

from __future__ import annotations

from celery import shared_task

from portal.telemetry import actions, minutes


@shared_task(name="telemetry.roll")
def roll() -> int:
    """Every minute: minute rows from the streams."""
    return minutes.roll(minutes=3)


@shared_task(name="telemetry.sweep")
def sweep() -> int:
    """Every hour: forget what is older than is kept."""
    return minutes.sweep() + actions.sweep_events()
