"""Which streams belong to an app."""

from __future__ import annotations

from django.db.models import QuerySet

from portal.releases.models import Instance

MOST = 50  # the newest; an app that was deployed a thousand times has as many streams, all but these long trimmed


def names(app_id: int) -> list[str]:
    """Instances of an app, newest first: those that run and those of before, whose last words matter most."""
    return list(_rows(app_id).values_list("pk", flat=True)[:MOST])


def labels(app_id: int) -> dict[str, str]:
    """What people call each: `web.1`."""
    rows = _rows(app_id).values_list("pk", "process", "ordinal")[:MOST]
    return {pk: f"{process}.{ordinal}" for pk, process, ordinal in rows}


def running() -> dict[str, int]:
    """Instance → app of everything that should be on a host now; one query for the platform."""
    return dict(Instance.objects.exclude(wanted="removed").values_list("pk", "app_id"))


def _rows(app_id: int) -> QuerySet[Instance]:
    return Instance.objects.filter(app_id=app_id).order_by("-created_at")
