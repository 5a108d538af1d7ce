"""An app's past measurements: streams for the last hour, minute rows beyond it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from django.utils import timezone

from portal.hosting.models import App
from portal.plans.models import Plan
from portal.telemetry import instances, redis
from portal.telemetry.models import MinuteMetric
from portal.telemetry.points import Point, points, thinned
from worker.protocol import MetricSample, metric_stream

MAX_POINTS = 300
STREAM_S = 3600.0
LIMITS = (
    "cpu_millicores",
    "memory_bytes",
    "pids",
    "disk_bytes",
    "disk_read_bps",
    "disk_write_bps",
    "net_in_bps",
    "net_out_bps",
)


def history(app: App, window_s: float, *, max_points: int = MAX_POINTS) -> dict[str, list[Point]]:
    """Instance id → points, oldest first, at most `max_points` each. Rates are averages over each step."""
    if window_s <= STREAM_S:
        return recent(instances.names(app.pk), window_s, max_points=max_points)
    return _from_minutes(app, window_s, max_points)


def recent(names: Sequence[str], window_s: float, *, max_points: int = MAX_POINTS) -> dict[str, list[Point]]:
    """The same from the streams alone; one round trip for all instances, and only what is shown is unpacked."""
    pipe = redis.client().pipeline(transaction=False)
    start_ms = int((time.time() - window_s) * 1000)
    for name in names:
        pipe.xrange(metric_stream(name), min=str(start_ms))
    found = {}
    for name, rows in zip(names, pipe.execute(), strict=True):
        kept = thinned(rows, max_points)
        if made := points(name, (MetricSample.unpack(fields[b"s"]) for _, fields in kept)):
            found[name] = made
    return found


def _from_minutes(app: App, window_s: float, max_points: int) -> dict[str, list[Point]]:
    rows = MinuteMetric.objects.filter(app=app, minute__gte=timezone.now() - dt.timedelta(seconds=window_s))
    step_s = max(60, int(window_s / max_points) + 1)
    buckets: dict[str, dict[int, list[MinuteMetric]]] = {}
    for row in rows.order_by("minute").iterator():
        buckets.setdefault(row.instance, {}).setdefault(int(row.minute.timestamp()) // step_s, []).append(row)
    return {
        name: [_average(app.plan, mine) for _, mine in sorted(steps.items())] for name, steps in sorted(buckets.items())
    }


def _average(plan: Plan, rows: Sequence[MinuteMetric]) -> Point:
    def mean(name: str) -> float:
        return fmean(getattr(row, name) for row in rows)

    return Point(
        instance=rows[0].instance,
        at=rows[-1].minute.timestamp() + 60,
        cpu_millicores=mean("cpu_millicores"),
        cpu_limit_millicores=plan.cpu_millicores,
        throttled_pct=0.0,
        memory_bytes=max(row.memory_max_bytes for row in rows),
        memory_limit_bytes=plan.memory_bytes,
        net_in_bps=mean("net_in_bps"),
        net_out_bps=mean("net_out_bps"),
        disk_read_bps=mean("disk_read_bps"),
        disk_write_bps=mean("disk_write_bps"),
        disk_used_bytes=rows[-1].disk_used_bytes,
        pids=max(row.pids for row in rows),
    )


def limits_json(plan: Plan) -> dict[str, int]:
    """The plan's figures that charts are drawn against; 0 is no limit."""
    return {name: getattr(plan, name) for name in LIMITS}


def history_json(app: App, window_s: float) -> dict[str, Any]:
    """History with limits and names, as page and API have it. Many instances share the points of four."""
    names = instances.labels(app.pk)
    found = history(app, window_s, max_points=max(30, min(MAX_POINTS, 4 * MAX_POINTS // max(1, len(names)))))
    return {
        "app": app.slug,
        "team": app.team.slug,
        "window_s": window_s,
        "limits": limits_json(app.plan),
        "instances": {name: {"name": names.get(name, name), "points": _json(made)} for name, made in found.items()},
    }


def _json(made: Iterable[Point]) -> list[dict[str, Any]]:
    return [point.to_json() for point in made]
