"""`/apps`: making, looking, configuring, starting and stopping."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Body, Router, Schema, Status

from portal.accounts.access import get_team, only_team
from portal.api_auth import acting
from portal.api_idempotency import idempotent
from portal.api_paging import page
from portal.hosting.access import get_app, visible_apps
from portal.hosting.actions import create_app, set_env, update_app
from portal.hosting.environment import masked_environment
from portal.hosting.models import App
from portal.plans.access import get_plan
from portal.releases import actions
from portal.releases.models import Deployment, Instance, Release
from portal.releases.schemas import (
    APP_FIELDS,
    AppOut,
    AppsOut,
    DeploymentOut,
    InstanceOut,
    app_bodies,
    deployment_body,
    instance_body,
)

router = Router(tags=["apps"])


class AppIn(Schema):
    """An app to make. `team` may be left out by someone who is in one only, `plan` for the default one."""

    app: str
    team: str = ""
    plan: str = ""
    port: int | None = None
    health_path: str = ""
    no_new_privs: bool = True
    deploy_on_push: bool = False
    follow_tag: str = "latest"


class AppPatch(Schema):
    """What to change. The plan and which pushes deploy count at once, the rest from the next deployment on."""

    plan: str | None = None
    port: int | None = None
    health_path: str | None = None
    no_new_privs: bool | None = None
    deploy_on_push: bool | None = None
    follow_tag: str | None = None


class EnvOut(Schema):
    """Variables, masked, and the deployment that a change began."""

    team: str
    environment: dict[str, str]
    changed: list[str] = []
    deployment: DeploymentOut | None = None


class ScaleOut(Schema):
    """The counts, and the deployment that brings them about."""

    team: str
    processes: dict[str, int]
    deployment: DeploymentOut | None


def loaded(deployment: Deployment) -> dict[str, Any]:
    """A deployment as DeploymentOut, with events, read anew: on commit it may have moved on."""
    rows = Deployment.objects.select_related("app__team", "release__image", "created_by").prefetch_related("events")
    return deployment_body(rows.get(pk=deployment.pk), events=True)


def _one(app: App) -> dict[str, Any]:
    row = App.objects.select_related("team", "plan").get(pk=app.pk)
    return app_bodies([row])[0]


@router.get("/apps", response=AppsOut, operation_id="list_apps")
def apps(request: HttpRequest, team: str = "", cursor: str = "", limit: int = 50) -> HttpResponse:
    """The apps the caller may see, by name."""
    actor = acting(request)
    rows = visible_apps(actor, team=get_team(actor, team) if team else None).only(*APP_FIELDS)
    found, following = page(rows, by="slug", cursor=cursor, limit=limit)
    # Written as it is: checking 100 rows against the schema costs as much as reading them. A test holds the two together.
    return JsonResponse({"items": app_bodies(found), "next": following})


@router.post("/apps", response={201: AppOut}, operation_id="create_app")
@idempotent
def add_app(request: HttpRequest, body: AppIn) -> tuple[int, Any]:
    """Make an app."""
    actor = acting(request)
    team = get_team(actor, body.team, "write") if body.team else only_team(actor)
    plan = get_plan(actor, body.plan) if body.plan else None
    settings = body.dict(include={"port", "health_path", "no_new_privs", "deploy_on_push", "follow_tag"})
    return 201, _one(create_app(actor, team, slug=body.app, plan=plan, **settings))


@router.get("/apps/{app}", response=AppOut, operation_id="get_app")
def app_detail(request: HttpRequest, app: str) -> dict[str, Any]:
    """One app."""
    return _one(get_app(acting(request), app))


@router.patch("/apps/{app}", response=AppOut, operation_id="update_app")
def patch_app(request: HttpRequest, app: str, body: AppPatch) -> dict[str, Any]:
    """Change plan, port, health path, no_new_privs, or which pushed tag deploys."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    given = body.dict(exclude_unset=True)
    plan = given.pop("plan", None)
    settings = {name: value for name, value in given.items() if name == "port" or value is not None}
    if plan is not None:
        actions.move_to_plan(actor, row, get_plan(actor, plan))
    if settings:
        update_app(actor, row, **settings)
    return _one(row)


@router.delete("/apps/{app}", response={202: AppOut}, operation_id="delete_app")
def remove_app(request: HttpRequest, app: str) -> Status[Any]:
    """Remove the app and all it runs; its name is free when the last container is gone."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    body = _one(row)
    actions.delete_app(actor, row)
    return Status(202, body | {"state": "deleting", "wanted": "stopped"})


@router.post("/apps/{app}/start", response={200: AppOut, 202: AppOut}, operation_id="start_app")
@idempotent
def start_app(request: HttpRequest, app: str) -> tuple[int, Any]:
    """Run the app's release again."""
    actor = acting(request)
    row = get_app(actor, app, "deploy")
    begun = actions.start(actor, row)
    return (202 if begun else 200), _one(row)


@router.post("/apps/{app}/stop", response={202: AppOut}, operation_id="stop_app")
@idempotent
def stop_app(request: HttpRequest, app: str) -> tuple[int, Any]:
    """Stop every instance."""
    actor = acting(request)
    row = get_app(actor, app, "deploy")
    actions.stop(actor, row)
    return 202, _one(row)


@router.post("/apps/{app}/restart", response={202: DeploymentOut}, operation_id="restart_app")
@idempotent
def restart_app(request: HttpRequest, app: str) -> tuple[int, Any]:
    """Replace every instance by a new one of the same release, without a gap."""
    actor = acting(request)
    return 202, loaded(actions.restart(actor, get_app(actor, app, "deploy")))


@router.put("/apps/{app}/scale", response={200: ScaleOut, 202: ScaleOut}, operation_id="scale_app")
def scale_app(request: HttpRequest, app: str, body: Body[dict[str, int]]) -> Status[Any]:
    """Set the number of instances per process."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    begun = actions.scale(actor, row, body)
    counts = dict(row.processes.values_list("name", "count"))
    deployment = loaded(begun) if begun else None
    answer = {"team": row.team.slug, "processes": counts, "deployment": deployment}
    return Status(202 if begun else 200, answer)


@router.get("/apps/{app}/env", response=EnvOut, operation_id="get_env")
def env(request: HttpRequest, app: str) -> dict[str, Any]:
    """The names of the app's variables; values are masked."""
    row = get_app(acting(request), app)
    return {"team": row.team.slug, "environment": masked_environment(row)}


@router.patch("/apps/{app}/env", response={200: EnvOut, 202: EnvOut}, operation_id="set_env")
def patch_env(request: HttpRequest, app: str, body: Body[dict[str, str | None]], deploy: bool = True) -> Status[Any]:
    """Set variables; null removes one. Makes a release and deploys it, unless `deploy=false` or nothing was ever deployed."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    changed = set_env(actor, row, body)
    begun = None
    if changed and deploy and row.wanted == "running" and Release.objects.filter(app=row).exists():
        begun = loaded(actions.redeploy(actor, row))
    masked = masked_environment(row)
    answer = {"team": row.team.slug, "environment": masked, "changed": changed, "deployment": begun}
    return Status(202 if begun else 200, answer)


@router.get("/apps/{app}/instances", response=list[InstanceOut], operation_id="list_instances")
def instances(request: HttpRequest, app: str) -> list[dict[str, Any]]:
    """The app's containers, those on their way out too."""
    row = get_app(acting(request), app)
    rows = Instance.objects.filter(app=row).select_related("release", "host")
    return [instance_body(instance, row) for instance in rows.order_by("process", "ordinal", "created_at")]
