"""Plans and team quotas. Changing a plan that apps use is `releases.actions.change_plan`: it reaches running containers."""

from __future__ import annotations

from typing import Any

from django.db import models, transaction
from django.utils import timezone

from portal.accounts.access import require_operator
from portal.accounts.actions import check_label
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.errors import Conflict, Invalid, OverQuota
from portal.plans.check import Sums, fits, sentences
from portal.plans.models import Plan, TeamQuota

_FIXED = {"id", "slug", "version", "retired_at"}
PLAN_FIELDS = tuple(field.name for field in Plan._meta.concrete_fields if field.name not in _FIXED)
QUOTA_FIELDS = (
    "apps", "instances", "cpu_millicores", "memory_bytes", "disk_bytes", "image_bytes", "volumes", "volume_bytes", "backup_bytes",
)  # fmt: skip
_AT_LEAST = {
    "cpu_millicores": 10,
    "memory_bytes": 8 << 20,
    "disk_bytes": 16 << 20,
    "pids": 8,
    "instances_max": 1,
    "cpu_weight": 1,
}
_SEEDED: dict[str, dict[str, int]] = {
    "nano": {
        "cpu_millicores": 250,
        "memory_bytes": 128 << 20,
        "pids": 128,
        "disk_bytes": 256 << 20,
        "instances_max": 2,
    },
    "small": {"cpu_millicores": 500, "memory_bytes": 512 << 20, "pids": 256, "disk_bytes": 1 << 30, "instances_max": 4},
    "medium": {"cpu_millicores": 1000, "memory_bytes": 1 << 30, "pids": 512, "disk_bytes": 4 << 30, "instances_max": 8},
    "large": {
        "cpu_millicores": 2000,
        "memory_bytes": 2 << 30,
        "pids": 1024,
        "disk_bytes": 10 << 30,
        "instances_max": 16,
    },
}


def check_fields(fields: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise Invalid for an unknown field or a figure below what can run."""
    for name, value in fields.items():
        if name not in allowed:
            raise Invalid(f"{name!r} cannot be set.", f"Fields: {', '.join(allowed)}.")
        if name in {"name", "is_default"}:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise Invalid(f"{name} is {value!r}: give a whole number of 0 or more.")
        if value < _AT_LEAST.get(name, 0):
            raise Invalid(f"{name} is {value}: the least that runs is {_AT_LEAST[name]}.")
    if fields.get("cpu_weight", 1) > 10_000:
        raise Invalid(f"cpu_weight is {fields['cpu_weight']}: the most is 10000.")


@transaction.atomic
def create_plan(actor: Actor, *, slug: str, name: str = "", **fields: Any) -> Plan:
    """Add a plan (operators). Needs cpu_millicores, memory_bytes, disk_bytes; the rest has defaults."""
    require_operator(actor)
    check_label(slug, "a plan")
    missing = [need for need in ("cpu_millicores", "memory_bytes", "disk_bytes") if need not in fields]
    if missing:
        raise Invalid(f"A plan needs {', '.join(missing)}.")
    check_fields(fields, PLAN_FIELDS)
    if Plan.objects.filter(slug=slug).exists():
        raise Conflict(f"Plan {slug} exists already.", "Change it, or choose another name.")
    last = Plan.objects.aggregate(last=models.Max("position"))["last"]
    plan = Plan.objects.create(**{"position": (last or 0) + 1, **fields}, slug=slug, name=name or slug.capitalize())
    if plan.is_default:
        Plan.objects.exclude(pk=plan.pk).update(is_default=False)
    record(actor, "create", "plan", slug, **fields)
    return plan


@transaction.atomic
def retire_plan(actor: Actor, plan: Plan) -> None:
    """Offer a plan to no new app (operators); apps that have it keep it. The default plan cannot go (Conflict)."""
    require_operator(actor)
    if plan.is_default:
        raise Conflict(f"{plan.slug} is the default plan.", "Make another the default first.")
    Plan.objects.filter(pk=plan.pk, retired_at=None).update(retired_at=timezone.now())
    record(actor, "retire", "plan", plan.slug)


def seed_plans() -> None:
    """nano, small (default), medium and large, where there is no plan at all."""
    if Plan.objects.exists():
        return
    for position, (slug, fields) in enumerate(_SEEDED.items()):
        Plan.objects.create(
            slug=slug, name=slug.capitalize(), position=position, is_default=slug == "small", swap_bytes=0,
            disk_read_bps=100_000_000, disk_write_bps=50_000_000, net_in_bps=200_000_000, net_out_bps=100_000_000, **fields,
        )  # fmt: skip


def default_plan() -> Plan:
    """The plan of an app that names none; raises Invalid when the operator left none."""
    plan = Plan.objects.filter(retired_at=None).order_by("-is_default", "position").first()
    if plan is None:
        raise Invalid("There is no plan.", "Ask an operator to make one.")
    return plan


def quota_of(team: Team) -> TeamQuota:
    """The team's quota row, made with the defaults at first sight."""
    return TeamQuota.objects.get_or_create(team=team)[0]


def lock_quota(team: Team) -> TeamQuota:
    """The quota row, locked until the transaction ends: whoever takes from a quota locks it before he counts."""
    quota_of(team)
    return TeamQuota.objects.select_for_update().get(team=team)


def sums_of(quota: TeamQuota) -> Sums:
    """The quota as Sums."""
    return Sums(**{name: getattr(quota, name) for name in QUOTA_FIELDS})


def take(team: Team, used: Sums, wanted: Sums) -> None:
    """Raise OverQuota with every figure that does not fit. The caller holds `lock_quota(team)`, then counted `used`."""
    short = fits(sums_of(quota_of(team)), used, wanted)
    if short:
        raise OverQuota(
            f"Team {team.slug} is over its quota: {sentences(short)}",
            "Delete or scale down something, choose a smaller plan, or ask an operator for a larger quota.",
            extra={
                "shortfalls": [
                    {"dimension": s.dimension, "allowed": s.allowed, "used": s.used, "wanted": s.wanted} for s in short
                ]
            },
        )


@transaction.atomic
def set_quota(actor: Actor, team: Team, **fields: Any) -> TeamQuota:
    """Change a team's sums (operators). A quota below what is used stops nothing that runs; it refuses more."""
    require_operator(actor)
    check_fields(fields, QUOTA_FIELDS)
    lock_quota(team)
    TeamQuota.objects.filter(team=team).update(**fields)
    record(actor, "set_quota", "team", team.slug, team=team.slug, **fields)
    return TeamQuota.objects.get(team=team)
