"""What teams have reserved and use, and what hosts have: sums over the whole platform in a constant number of queries."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, F, Sum
from django.utils import timezone

from portal import figures
from portal.accounts.models import Team
from portal.fleet.models import Host
from portal.hosting.models import Process
from portal.pages.rows import Meter
from portal.plans.models import TeamQuota
from portal.telemetry.models import MinuteMetric


@dataclass(frozen=True, slots=True)
class TeamUse:
    """One team: reserved by its plans, allowed by its quota, really used in the last minutes."""

    team: Team
    quota: TeamQuota
    apps: int
    instances: int
    cpu_millicores: int
    memory_bytes: int
    cpu_used: float
    memory_used: int


def _reserved() -> dict[int, dict[str, int]]:
    rows = Process.objects.filter(app__deleting_at=None).values("app__team")
    sums = rows.annotate(
        apps=Count("app", distinct=True),
        instances=Sum("count"),
        cpu_millicores=Sum(F("count") * F("app__plan__cpu_millicores")),
        memory_bytes=Sum(F("count") * F("app__plan__memory_bytes")),
        disk_bytes=Sum(F("count") * F("app__plan__disk_bytes")),
    )
    return {row.pop("app__team"): {key: value or 0 for key, value in row.items()} for row in sums}


def _used() -> dict[int, tuple[float, int]]:
    """CPU and memory by team, from each instance's newest minute of the last three."""
    since = timezone.now() - dt.timedelta(minutes=3)
    rows = MinuteMetric.objects.filter(minute__gte=since).order_by("minute")
    newest = {row[0]: row for row in rows.values_list("instance", "app__team", "cpu_millicores", "memory_bytes")}
    sums: dict[int, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for _, team, cpu, memory in newest.values():
        sums[team] = (sums[team][0] + cpu, sums[team][1] + memory)
    return sums


def team_usage() -> list[TeamUse]:
    """Every team, the largest reservation of memory first."""
    reserved, used = _reserved(), _used()
    quotas = {row.team_id: row for row in TeamQuota.objects.all()}
    none = dict.fromkeys(("apps", "instances", "cpu_millicores", "memory_bytes"), 0)
    found = []
    for team in Team.objects.order_by("name"):
        sums = reserved.get(team.pk, none)
        cpu, memory = used.get(team.pk, (0.0, 0))
        found.append(
            TeamUse(
                team=team, quota=quotas.get(team.pk) or TeamQuota(team=team), apps=sums["apps"], instances=sums["instances"],
                cpu_millicores=sums["cpu_millicores"], memory_bytes=sums["memory_bytes"], cpu_used=cpu, memory_used=memory,
            )
        )  # fmt: skip
    return sorted(found, key=lambda row: -row.memory_bytes)


def platform_meters(hosts: Sequence[Host]) -> list[Meter]:
    """What plans have reserved of all hosts together. CPU may be above the whole: shares then decide."""
    sums = _reserved().values()
    cpu, memory, disk, count = (
        sum(s[k] for s in sums) for k in ("cpu_millicores", "memory_bytes", "disk_bytes", "instances")
    )
    has = {
        key: sum(host.facts.get(key, 0) for host in hosts) for key in ("cpu_millicores", "memory_bytes", "disk_bytes")
    }
    return [
        Meter(
            "CPU reserved",
            cpu,
            has["cpu_millicores"],
            figures.short(cpu / 1000),
            f"of {figures.cores(has['cpu_millicores'])}",
        ),
        Meter(
            "Memory reserved",
            memory,
            has["memory_bytes"],
            figures.size(memory),
            f"of {figures.size(has['memory_bytes'])}",
        ),
        Meter("Disk reserved", disk, has["disk_bytes"], figures.size(disk), f"of {figures.size(has['disk_bytes'])}"),
        Meter("Instances", count, 0, str(count), f"on {len(hosts)} host{'' if len(hosts) == 1 else 's'}"),
    ]
