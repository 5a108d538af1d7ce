"""Limit events: what the hosts say was hit, kept once, shown at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from portal import hints
from portal.fleet.models import Host
from portal.releases.models import Instance
from portal.telemetry.models import LimitEvent
from worker.protocol import LimitHit

SAME_EVENT = dt.timedelta(seconds=30)
RENEWED = dt.timedelta(minutes=5)  # what stays hit is told each minute
EVENTS_KEPT = dt.timedelta(days=30)
MAX_HITS = 500

type _Key = tuple[str, str, str]


@transaction.atomic
def record_limit_hits(host: Host, hits: Sequence[LimitHit]) -> int:
    """Keep the hits of a host's instances and hint the pages; how many rows are new.

    A hit of the same instance, limit and level within 30 s updates the row of before, and so does one that says it has
    lasted since then. Hits for an instance that is not on this host are dropped: a host speaks for itself only.
    """
    hits = hits[:MAX_HITS]
    apps = dict(Instance.objects.filter(host=host, pk__in={h.instance for h in hits}).values_list("pk", "app_id"))
    latest = _latest(apps)
    fresh: list[LimitEvent] = []
    changed: dict[int, LimitEvent] = {}
    for hit in sorted(hits, key=lambda hit: hit.when):
        if hit.instance not in apps:
            continue
        event, key = _event(hit, apps[hit.instance]), (hit.instance, hit.limit, hit.level)
        before = latest.get(key)
        if before is None or min(event.at - SAME_EVENT, event.began) > before.at:
            fresh.append(event)
            latest[key] = event
        else:
            _merge(before, event)
            if before.pk is not None:
                changed[before.pk] = before
    LimitEvent.objects.bulk_create(fresh)
    LimitEvent.objects.bulk_update(changed.values(), ["used", "allowed", "process", "sentence", "at"])
    for app_id in {event.app_id for event in (*fresh, *changed.values())}:
        hints.page_changed(app_id, "limits")
    return len(fresh)


def _latest(apps: dict[str, int]) -> dict[_Key, LimitEvent]:
    since = timezone.now() - RENEWED
    rows = LimitEvent.objects.filter(instance__in=apps, at__gte=since).order_by("at")
    return {(row.instance, row.limit, row.level): row for row in rows}


def _event(hit: LimitHit, app_id: int) -> LimitEvent:
    now = timezone.now()
    # A host whose clock is ahead must not write into the future.
    at = min(now, dt.datetime.fromtimestamp(hit.when, dt.UTC)) if hit.when else now
    return LimitEvent(
        app_id=app_id,
        instance=hit.instance[:63],
        limit=hit.limit[:12],
        level=hit.level[:10],
        used=hit.used,
        allowed=hit.allowed,
        process=hit.process[:64],
        sentence=hit.sentence[:1000],
        at=at,
        since=min(at, dt.datetime.fromtimestamp(hit.since, dt.UTC)) if hit.since else at,
    )


def _merge(row: LimitEvent, event: LimitEvent) -> None:
    row.used = max(row.used, event.used)
    row.allowed, row.sentence, row.at = event.allowed, event.sentence, max(row.at, event.at)
    row.process = event.process or row.process


def sweep_events() -> int:
    """Forget events older than EVENTS_KEPT; how many went."""
    return LimitEvent.objects.filter(at__lt=timezone.now() - EVENTS_KEPT).delete()[0]
