"""`/plans` and `/teams/{team}/quota`. PATCH of a plan is in `releases.api_plans`: it reaches running containers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import ModelSchema, Router, Schema

from portal.accounts.access import get_team
from portal.api_auth import acting
from portal.api_idempotency import idempotent
from portal.plans.actions import create_plan, quota_of, set_quota
from portal.plans.models import Plan, TeamQuota

router = Router(tags=["plans"])


class PlanOut(ModelSchema):
    """A plan: limits of one instance (bytes, bytes or bits per second as named, 0 = none of this kind) and counts."""

    class Meta:
        model = Plan
        exclude = ["id"]


class PlanFields(Schema):
    """What can be set; what is left out stays."""

    name: str | None = None
    position: int | None = None
    is_default: bool | None = None
    cpu_millicores: int | None = None
    cpu_weight: int | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    disk_read_bps: int | None = None
    disk_write_bps: int | None = None
    disk_read_iops: int | None = None
    disk_write_iops: int | None = None
    net_in_bps: int | None = None
    net_out_bps: int | None = None
    log_bytes_per_s: int | None = None
    log_bytes: int | None = None
    log_days: int | None = None
    instances_max: int | None = None
    volumes_max: int | None = None
    domains_max: int | None = None
    releases_kept: int | None = None
    image_bytes: int | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were sent with a value."""
        return self.dict(exclude_unset=True, exclude_none=True)


class PlanIn(PlanFields):
    """A plan to add."""

    slug: str


class QuotaOut(ModelSchema):
    """A team's sums."""

    class Meta:
        model = TeamQuota
        exclude = ["id", "team"]


class QuotaIn(Schema):
    """The sums to set; what is left out stays."""

    apps: int | None = None
    instances: int | None = None
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    image_bytes: int | None = None
    volumes: int | None = None
    volume_bytes: int | None = None
    backup_bytes: int | None = None


@router.get("/plans", response=list[PlanOut], operation_id="list_plans")
def plans(request: HttpRequest) -> list[Plan]:
    """Every plan that takes apps."""
    return list(Plan.objects.filter(retired_at=None))


@router.post("/plans", response={201: PlanOut}, operation_id="create_plan")
@idempotent
def add_plan(request: HttpRequest, body: PlanIn) -> tuple[int, Any]:
    """Add a plan (operators)."""
    fields = body.given()
    plan = create_plan(acting(request), slug=fields.pop("slug"), name=fields.pop("name", ""), **fields)
    return 201, PlanOut.from_orm(plan).dict()


@router.get("/teams/{team}/quota", response=QuotaOut, operation_id="get_quota")
def quota(request: HttpRequest, team: str) -> TeamQuota:
    """A team's sums."""
    return quota_of(get_team(acting(request), team))


@router.put("/teams/{team}/quota", response=QuotaOut, operation_id="set_quota")
def put_quota(request: HttpRequest, team: str, body: QuotaIn) -> TeamQuota:
    """Change a team's sums (operators)."""
    actor = acting(request)
    return set_quota(actor, get_team(actor, team), **body.dict(exclude_unset=True, exclude_none=True))
