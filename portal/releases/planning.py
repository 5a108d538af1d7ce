"""Plans of running apps: changing one, moving an app to another, and what that would break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F, Sum

from portal import hints
from portal.accounts.access import require, require_operator
from portal.accounts.actor import Actor
from portal.audit.actions import record
from portal.errors import Invalid, OverQuota
from portal.fleet.models import Host
from portal.hosting.models import App, Process
from portal.hosting.usage import plan_sums, reserved_by
from portal.plans.actions import PLAN_FIELDS, check_fields, lock_quota, sums_of, take
from portal.plans.check import fits, sentences, size
from portal.plans.models import Plan, TeamQuota
from portal.releases.models import Instance
from worker.protocol import MetricSample

type Latest = Callable[[str], MetricSample | None]


@dataclass(frozen=True, slots=True)
class Effect:
    """Something a change of a plan would do. `breaks`: it would stop or refuse something at once."""

    app: str
    instance: str
    breaks: bool
    sentence: str


def _hint_all() -> None:
    for name in Host.objects.values_list("name", flat=True):
        hints.host_changed(name)


@transaction.atomic
def change_plan(actor: Actor, plan: Plan, fields: Mapping[str, Any]) -> Plan:
    """Change a plan's limits (operators): running containers get them within seconds, no restart. Raises Invalid."""
    require_operator(actor)
    check_fields(dict(fields), PLAN_FIELDS)
    locked = Plan.objects.select_for_update().get(pk=plan.pk)
    before = {name: getattr(locked, name) for name in fields}
    changed = {name: value for name, value in fields.items() if before[name] != value}
    if not changed:
        return locked
    Plan.objects.filter(pk=locked.pk).update(**changed, version=F("version") + 1)
    if changed.get("is_default"):
        Plan.objects.exclude(pk=locked.pk).update(is_default=False)
    record(actor, "change", "plan", locked.slug, before={name: before[name] for name in changed}, after=changed)
    for app_id in App.objects.filter(plan=locked).values_list("pk", flat=True):
        hints.page_changed(app_id, "limits")
    _hint_all()
    return Plan.objects.get(pk=locked.pk)


@transaction.atomic
def move_to_plan(actor: Actor, app: App, plan: Plan) -> App:
    """Give an app another plan (verb write); limits reach its running containers at once. OverQuota with figures."""
    require(actor, "write", app.team, missing=f"There is no app {app.slug!r}.")
    if plan.retired_at is not None and plan.pk != app.plan_id:
        raise Invalid(f"Plan {plan.slug} takes no new apps.", "Choose another plan.")
    lock_quota(app.team)
    locked = App.objects.select_for_update(of=("self",), no_key=True).select_related("plan", "team").get(pk=app.pk)
    count = Process.objects.filter(app=locked).aggregate(n=Sum("count"))["n"] or 0
    if count > plan.instances_max:
        raise OverQuota(
            f"{locked.slug} has {count} instances, plan {plan.slug} allows {plan.instances_max}.", "Scale down first."
        )
    take(locked.team, reserved_by(locked.team, without_app=locked.pk), plan_sums(plan, count, apps=1))
    was, locked.plan = locked.plan, plan
    locked.save(update_fields=["plan"])
    record(actor, "move_to_plan", "app", locked.slug, team=locked.team.slug, was=was.slug, plan=plan.slug)
    hints.page_changed(locked.pk, "limits")
    _hint_all()
    return locked


def plan_effects(plan: Plan, fields: Mapping[str, Any], latest: Latest) -> list[Effect]:
    """What changing `fields` of a plan would break, before it is saved. `latest(instance_id)` gives its newest sample or None.

    Raises Invalid as `change_plan` would. Instances using more than a new limit come first, then counts, then quotas.
    """
    check_fields(dict(fields), PLAN_FIELDS)
    found: list[Effect] = []
    rows = Instance.objects.filter(app__plan=plan, wanted="running").select_related("app").order_by("app__slug", "pk")
    for row in rows:
        sample = latest(row.pk)
        if sample is not None:
            found += _instance_effects(row, sample, fields)
    return found + _count_effects(plan, fields) + _quota_effects(plan, fields)


def _instance_effects(row: Instance, sample: MetricSample, fields: Mapping[str, Any]) -> list[Effect]:
    memory, disk, pids = fields.get("memory_bytes"), fields.get("disk_bytes"), fields.get("pids")
    found = []
    if memory is not None and sample.memory_bytes > memory:
        text = f"uses {size(sample.memory_bytes)} of memory: with {size(memory)} the kernel reclaims, then kills it"
        found.append(text)
    if disk is not None and sample.disk_used_bytes > disk:
        found.append(f"has written {size(sample.disk_used_bytes)}: with {size(disk)} its disk is full")
    if pids is not None and sample.pids > pids:
        found.append(f"runs {sample.pids} processes: with {pids} it can start no more")
    return [Effect(row.app.slug, row.pk, True, f"{row.pk} {text}.") for text in found]


def _count_effects(plan: Plan, fields: Mapping[str, Any]) -> list[Effect]:
    most = fields.get("instances_max")
    if most is None:
        return []
    counts = (
        Process.objects.filter(app__plan=plan, app__deleting_at=None).values_list("app__slug").annotate(n=Sum("count"))
    )
    text = "{} has {} instances, the plan would allow {}: they run on, it cannot scale up."
    return [Effect(slug, "", False, text.format(slug, n, most)) for slug, n in counts.order_by("app__slug") if n > most]


def _quota_effects(plan: Plan, fields: Mapping[str, Any]) -> list[Effect]:
    after = Plan.objects.get(pk=plan.pk)
    for name, value in fields.items():
        setattr(after, name, value)
    found = []
    for quota in TeamQuota.objects.filter(team__apps__plan=plan).select_related("team").distinct():
        team = quota.team
        mine = Process.objects.filter(app__team=team, app__plan=plan, app__deleting_at=None)
        count = mine.aggregate(n=Sum("count"))["n"] or 0
        before, more = plan_sums(plan, count), plan_sums(after, count)
        grows = {
            n: max(getattr(more, n) - getattr(before, n), 0) for n in ("cpu_millicores", "memory_bytes", "disk_bytes")
        }
        short = fits(sums_of(quota), reserved_by(team), type(more)(**grows))
        if short:
            text = f"Team {team.slug} would be over its quota: {sentences(short)} What runs stays; it can start nothing more."
            found.append(Effect("", "", False, text))
    return found
