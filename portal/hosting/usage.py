"""What a team has reserved: each app's plan times the number of its instances."""

from __future__ import annotations

from django.db.models import F, QuerySet, Sum

from portal.accounts.models import Team
from portal.hosting.models import Process
from portal.plans.check import Sums
from portal.plans.models import Plan


def plan_sums(plan: Plan, instances: int, *, apps: int = 0) -> Sums:
    """What so many instances of a plan reserve."""
    return Sums(
        apps=apps,
        instances=instances,
        cpu_millicores=plan.cpu_millicores * instances,
        memory_bytes=plan.memory_bytes * instances,
        disk_bytes=plan.disk_bytes * instances,
    )


def reserved_by(team: Team, *, without_app: int | None = None) -> Sums:
    """The team's reservation (stopped apps count too: they may start at any time), in two queries.

    The second release of a rolling deployment is not counted: it lives for seconds.
    """
    rows: QuerySet[Process] = Process.objects.filter(app__team=team, app__deleting_at=None)
    apps = team.apps.filter(deleting_at=None)
    if without_app is not None:
        rows, apps = rows.exclude(app_id=without_app), apps.exclude(pk=without_app)
    sums = rows.aggregate(
        instances=Sum("count"),
        cpu_millicores=Sum(F("count") * F("app__plan__cpu_millicores")),
        memory_bytes=Sum(F("count") * F("app__plan__memory_bytes")),
        disk_bytes=Sum(F("count") * F("app__plan__disk_bytes")),
    )
    return Sums(apps=apps.count(), **{name: value or 0 for name, value in sums.items()})
