"""`/apps/…/deployments`, `/releases`, plans that are changed, usage. Deploying itself is raw ASGI (`deploy_asgi`)."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from portal.accounts.access import get_team
from portal.api_auth import acting
from portal.api_paging import page
from portal.hosting.access import get_app
from portal.hosting.usage import reserved_by
from portal.images.quota import used_bytes
from portal.plans.access import get_plan
from portal.plans.actions import quota_of, sums_of
from portal.plans.api import PlanFields, PlanOut
from portal.plans.models import Plan
from portal.releases import actions
from portal.releases.access import get_deployment
from portal.releases.api_apps import loaded
from portal.releases.api_apps import router as apps_router
from portal.releases.holdings import holdings
from portal.releases.models import Deployment, DeploymentState, Release
from portal.releases.schemas import DeploymentOut, DeploymentsOut, ReleasesOut, deployment_body, release_body
from portal.volumes.actions import taken

router = Router(tags=["deployments"])
router.add_router("", apps_router)


class SumsOut(Schema):
    """Figures in the dimensions of a quota."""

    apps: int
    instances: int
    cpu_millicores: int
    memory_bytes: int
    disk_bytes: int
    image_bytes: int
    volumes: int
    volume_bytes: int
    backup_bytes: int


class UsageOut(Schema):
    """What a team has reserved (plans times instances) of its quota."""

    team: str
    used: SumsOut
    quota: SumsOut


class HoldingOut(Schema):
    """An image of a team; `own_bytes` is what its removal frees, `goes_at` is null while a release has it."""

    repository: str
    digest: str
    reference: str
    created_at: dt.datetime
    size_bytes: int
    own_bytes: int
    why: str
    goes_at: dt.datetime | None


class HoldingsOut(Schema):
    """What a team's images take; layers that images share count once."""

    team: str
    used_bytes: int
    quota_bytes: int
    promised_bytes: int
    claimed_bytes: int
    count: int
    items: list[HoldingOut]


@router.get("/apps/{app}/deployments", response=DeploymentsOut, operation_id="list_deployments")
def deployments(request: HttpRequest, app: str, cursor: str = "", limit: int = 50) -> dict[str, Any]:
    """The app's deployments, newest first."""
    row = get_app(acting(request), app)
    rows = Deployment.objects.filter(app=row).select_related("app__team", "release__image", "created_by")
    found, following = page(rows, by="-number", cursor=cursor, limit=limit)
    return {"items": [deployment_body(deployment) for deployment in found], "next": following}


@router.get("/apps/{app}/deployments/{number}", response=DeploymentOut, operation_id="get_deployment")
def deployment_detail(request: HttpRequest, app: str, number: int) -> dict[str, Any]:
    """One deployment with its events."""
    return loaded(get_deployment(acting(request), app, number))


@router.post("/apps/{app}/deployments/{number}/cancel", response=DeploymentOut, operation_id="cancel_deployment")
def cancel(request: HttpRequest, app: str, number: int) -> dict[str, Any]:
    """End a deployment under way; the old instances serve on. 409 when it has ended."""
    actor = acting(request)
    return loaded(actions.cancel(actor, get_deployment(actor, app, number, "deploy")))


@router.get("/apps/{app}/releases", response=ReleasesOut, operation_id="list_releases")
def releases(request: HttpRequest, app: str, cursor: str = "", limit: int = 50) -> dict[str, Any]:
    """The app's releases, newest first."""
    row = get_app(acting(request), app)
    rows = Release.objects.filter(app=row).select_related("image", "created_by")
    found, following = page(rows, by="-number", cursor=cursor, limit=limit)
    live = Deployment.objects.filter(app=row, state=DeploymentState.LIVE).values_list("release_id", flat=True).first()
    return {"items": [release_body(release, row, live=release.pk == live) for release in found], "next": following}


@router.get("/plans/{plan}", response=PlanOut, operation_id="get_plan", tags=["plans"])
def plan_detail(request: HttpRequest, plan: str) -> Plan:
    """One plan. Beside the call that changes it: ninja answers 405 when one path's methods lie in two routers."""
    return get_plan(acting(request), plan)


@router.patch("/plans/{plan}", response=PlanOut, operation_id="update_plan", tags=["plans"])
def patch_plan(request: HttpRequest, plan: str, body: PlanFields) -> Plan:
    """Change a plan (operators); running containers get its limits within seconds."""
    actor = acting(request)
    return actions.change_plan(actor, get_plan(actor, plan, "operate"), body.given())


@router.get("/teams/{team}/usage", response=UsageOut, operation_id="get_usage", tags=["plans"])
def usage(request: HttpRequest, team: str) -> dict[str, Any]:
    """What a team has reserved, beside its quota."""
    row = get_team(acting(request), team)
    used = {**_fields(reserved_by(row) + taken(row)), "image_bytes": used_bytes(row)}
    return {"team": row.slug, "used": used, "quota": _fields(sums_of(quota_of(row)))}


@router.get("/teams/{team}/images", response=HoldingsOut, operation_id="list_images", tags=["plans"])
def images(request: HttpRequest, team: str, limit: int = 100) -> dict[str, Any]:
    """What the team's images take, why each stays and when what can go goes; those whose removal frees most come first."""
    found = holdings(get_team(acting(request), team))
    items = [
        {
            "repository": row.image.repository, "digest": row.image.digest, "reference": row.image.reference, "created_at": row.image.created_at,
            "size_bytes": row.image.size_bytes, "own_bytes": row.own_bytes, "why": row.why, "goes_at": row.goes_at,
        }
        for row in found.images[: max(1, min(limit, 500))]
    ]  # fmt: skip
    figures = {name: getattr(found, name) for name in ("used_bytes", "quota_bytes", "promised_bytes", "claimed_bytes")}
    return {"team": team, "items": items, "count": len(found.images), **figures}


def _fields(sums: Any) -> dict[str, int]:
    return {name: getattr(sums, name) for name in SumsOut.model_fields}
