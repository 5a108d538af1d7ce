"""What the lists load: a constant number of queries, however many apps there are."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Max, QuerySet
from django.utils import timezone

from portal import figures
from portal.accounts.models import Team
from portal.hosting.models import App, Process
from portal.hosting.usage import reserved_by
from portal.plans.actions import quota_of
from portal.releases.models import Deployment, Instance
from portal.releases.summary import Status, app_status, serving
from portal.telemetry.models import MinuteMetric

SPARK_MINUTES = 60


@dataclass(frozen=True, slots=True)
class AppRow:
    """One row of the list of apps."""

    app: App
    status: Status
    spark: list[float]
    count: int
    up: int
    when: dt.datetime


@dataclass(frozen=True, slots=True)
class Meter:
    """One dimension of a team's quota."""

    name: str
    used: float
    allowed: float
    figure: str
    unit: str

    @property
    def share(self) -> float:
        """Percent in use."""
        return figures.share(self.used, self.allowed)


def last_deployments(apps: Sequence[App]) -> dict[int, Deployment]:
    """Each app's newest deployment, by app."""
    newest = Deployment.objects.filter(app__in=apps).values("app").annotate(last=Max("pk")).values("last")
    return {row.app_id: row for row in Deployment.objects.filter(pk__in=newest).select_related("release")}


def instances_of(apps: Sequence[App]) -> dict[int, list[Instance]]:
    """Each app's instances with release and host, oldest first, by app."""
    found: dict[int, list[Instance]] = defaultdict(list)
    rows = Instance.objects.filter(app__in=apps).exclude(wanted="removed").select_related("release", "host")
    for row in rows.order_by("process", "ordinal", "created_at"):
        found[row.app_id].append(row)
    return found


def sparks(apps: Sequence[App]) -> dict[int, list[float]]:
    """CPU of the last hour, summed over instances, a value a minute, by app."""
    since = timezone.now() - dt.timedelta(minutes=SPARK_MINUTES)
    rows = MinuteMetric.objects.filter(app__in=apps, minute__gte=since).values_list("app", "minute", "cpu_millicores")
    sums: dict[int, dict[dt.datetime, float]] = defaultdict(lambda: defaultdict(float))
    for app, minute, cpu in rows:
        sums[app][minute] += cpu
    return {app: [by_minute[key] for key in sorted(by_minute)] for app, by_minute in sums.items()}


def app_rows(apps: QuerySet[App]) -> list[AppRow]:
    """Rows of the list of apps, five queries."""
    found = list(apps)
    last, instances, curves = last_deployments(found), instances_of(found), sparks(found)
    counts: dict[int, int] = defaultdict(int)
    for app_id, count in Process.objects.filter(app__in=found).values_list("app", "count"):
        counts[app_id] += count
    return [
        AppRow(
            app=app,
            status=app_status(app, last.get(app.pk), instances[app.pk]),
            spark=curves.get(app.pk, []),
            count=counts[app.pk],
            up=sum(row.observed == "healthy" for row in serving(instances[app.pk])),
            when=last[app.pk].created_at if app.pk in last else app.created_at,
        )
        for app in found
    ]


def meters(team: Team) -> list[Meter]:
    """What the team has reserved of its quota."""
    used, quota = reserved_by(team), quota_of(team)
    memory, disk = figures.size_parts(quota.memory_bytes), figures.size_parts(quota.disk_bytes)
    return [
        Meter(
            "CPU", used.cpu_millicores, quota.cpu_millicores, figures.short(used.cpu_millicores / 1000),
            f"of {figures.cores(quota.cpu_millicores)}",
        ),
        Meter("Memory", used.memory_bytes, quota.memory_bytes, *_of(used.memory_bytes, memory)),
        Meter("Disk", used.disk_bytes, quota.disk_bytes, *_of(used.disk_bytes, disk)),
        Meter("Instances", used.instances, quota.instances, str(used.instances), f"of {quota.instances}"),
    ]  # fmt: skip


def _of(used: int, allowed: tuple[str, str]) -> tuple[str, str]:
    figure, unit = figures.size_parts(used)
    whole = " ".join(allowed)
    return (figure, f"of {whole}") if unit == allowed[1] or not used else (figure, f"{unit} of {whole}")


def tight(rows: Sequence[Meter]) -> Meter | None:
    """The fullest dimension, when it is at 85 % or more."""
    fullest = max(rows, key=lambda row: row.share)
    return fullest if fullest.share >= 85 else None
