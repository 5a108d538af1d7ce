"""Minute rows: what the streams held, rolled up while they still hold it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from statistics import fmean

from django.utils import timezone

from portal.telemetry import instances, redis
from portal.telemetry.models import MinuteMetric
from portal.telemetry.points import Point, points
from worker.protocol import MetricSample, metric_stream

ROWS_KEPT = dt.timedelta(days=30)
CATCH_UP_MINUTES = 10  # after a pause of the control worker: minutes that the streams can still fill
BEFORE_MS = 10_000  # the sample before the first of a minute is needed for its first rate
BATCH = 200
_FIGURES = [field.name for field in MinuteMetric._meta.fields if field.name not in ("id", "app", "instance", "minute")]


def roll(now: dt.datetime | None = None, *, minutes: int = 2) -> int:
    """Write the last full `minutes` of every instance, all in one pass; how many rows. Repeating it changes nothing."""
    end = (now or timezone.now()).replace(second=0, microsecond=0)
    begin = end - dt.timedelta(minutes=min(minutes, CATCH_UP_MINUTES))
    apps = instances.running()
    rows: list[MinuteMetric] = []
    names = list(apps)
    for start in range(0, len(names), BATCH):
        for name, found in _between(names[start : start + BATCH], begin, end).items():
            rows += _rows(apps[name], name, begin, end, found)
    MinuteMetric.objects.bulk_create(
        rows, batch_size=500, update_conflicts=True, unique_fields=["instance", "minute"], update_fields=_FIGURES
    )
    return len(rows)


def _between(names: Sequence[str], begin: dt.datetime, end: dt.datetime) -> dict[str, list[Point]]:
    pipe = redis.client().pipeline(transaction=False)
    first, last = int(begin.timestamp() * 1000) - BEFORE_MS, int(end.timestamp() * 1000) - 1
    for name in names:
        pipe.xrange(metric_stream(name), min=first, max=last)
    replies = zip(names, pipe.execute(), strict=True)
    return {name: points(name, [MetricSample.unpack(fields[b"s"]) for _, fields in rows]) for name, rows in replies}


def _rows(app_id: int, name: str, begin: dt.datetime, end: dt.datetime, found: list[Point]) -> list[MinuteMetric]:
    by_minute: dict[int, list[Point]] = {}
    for point in found:
        if begin.timestamp() <= point.at < end.timestamp():
            by_minute.setdefault(int(point.at) // 60, []).append(point)
    return [_row(app_id, name, minute, mine) for minute, mine in by_minute.items()]


def _row(app_id: int, name: str, minute: int, found: list[Point]) -> MinuteMetric:
    def mean(field: str) -> float:
        return fmean(getattr(point, field) for point in found)

    return MinuteMetric(
        app_id=app_id,
        instance=name,
        minute=dt.datetime.fromtimestamp(minute * 60, dt.UTC),
        cpu_millicores=mean("cpu_millicores"),
        memory_bytes=int(mean("memory_bytes")),
        memory_max_bytes=max(point.memory_bytes for point in found),
        net_in_bps=mean("net_in_bps"),
        net_out_bps=mean("net_out_bps"),
        disk_read_bps=mean("disk_read_bps"),
        disk_write_bps=mean("disk_write_bps"),
        disk_used_bytes=found[-1].disk_used_bytes,
        pids=max(point.pids for point in found),
    )


def sweep() -> int:
    """Forget rows older than ROWS_KEPT; how many went."""
    return MinuteMetric.objects.filter(minute__lt=timezone.now() - ROWS_KEPT).delete()[0]
