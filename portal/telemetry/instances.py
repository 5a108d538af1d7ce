"""Which streams belong to an app."""

from __future__ import annotations

from django.utils import timezone

from portal.releases.models import Instance, PastInstance

MOST = 50  # the newest; an app that was deployed a thousand times has as many streams, all but these long trimmed


def names(app_id: int) -> list[str]:
    """Instances of an app, newest first: those that run and those of before, whose last words matter most."""
    return [pk for pk, _process, _ordinal in _rows(app_id)]


def labels(app_id: int) -> dict[str, str]:
    """What people call each: `web.1`."""
    return {pk: f"{process}.{ordinal}" for pk, process, ordinal in _rows(app_id)}


def running() -> dict[str, int]:
    """Instance → app of everything that should be on a host now; one query for the platform."""
    return dict(Instance.objects.exclude(wanted="removed").values_list("pk", "app_id"))


def _rows(app_id: int) -> list[tuple[str, str, int]]:
    """Id, process and number of each; of those that are gone, what their streams still hold."""
    since = timezone.now() - PastInstance.KEPT
    columns = ("pk", "process", "ordinal", "created_at")
    here = Instance.objects.filter(app_id=app_id).values_list(*columns)
    gone = PastInstance.objects.filter(app_id=app_id, gone_at__gte=since).values_list(*columns)
    rows = [*here.order_by("-created_at")[:MOST], *gone.order_by("-created_at")[:MOST]]
    rows.sort(key=lambda row: row[3], reverse=True)
    return [row[:3] for row in rows[:MOST]]
