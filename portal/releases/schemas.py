"""What the API says of apps, deployments, releases and instances; built in a constant number of queries for any list."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.db.models import Max
from ninja import Schema

from portal.config import config
from portal.hosting.models import App, Process
from portal.releases.models import Deployment, DeploymentState, Instance, Release
from portal.releases.rollout import ACTIVE


class LastDeployment(Schema):
    """The newest deployment of an app."""

    number: int
    state: str
    release: int
    reason: str


class AppOut(Schema):
    """An app. `state`: new, deploying, running, degraded, stopped, failed or deleting."""

    app: str
    team: str
    plan: str
    url: str
    state: str
    wanted: str
    processes: dict[str, int]
    healthy: int
    release: int | None
    deployment: LastDeployment | None
    port: int | None
    health_path: str
    no_new_privs: bool
    deploy_on_push: bool
    follow_tag: str
    created_at: dt.datetime


class AppsOut(Schema):
    """A page of apps."""

    items: list[AppOut]
    next: str | None


class EventOut(Schema):
    """One transition."""

    state: str
    at: dt.datetime
    text: str


class DeploymentOut(Schema):
    """A deployment; `events` only in the detail."""

    app: str
    team: str
    number: int
    state: str
    kind: str
    release: int
    image: str
    reason: str
    last_log: list[str]
    url: str
    created_at: dt.datetime
    state_since: dt.datetime
    finished_at: dt.datetime | None
    created_by: str | None
    events: list[EventOut] = []


class DeploymentsOut(Schema):
    """A page of deployments, newest first."""

    items: list[DeploymentOut]
    next: str | None


class ReleaseOut(Schema):
    """A release; the environment is never shown."""

    app: str
    team: str
    number: int
    image: str
    reference: str
    size_bytes: int
    processes: dict[str, Any]
    note: str
    live: bool
    created_at: dt.datetime
    created_by: str | None


class ReleasesOut(Schema):
    """A page of releases, newest first."""

    items: list[ReleaseOut]
    next: str | None


class InstanceOut(Schema):
    """One container of an app."""

    id: str
    app: str
    team: str
    release: int
    process: str
    ordinal: int
    host: str
    wanted: str
    state: str
    routed: bool
    restarts: int
    exit_code: int | None
    oom_killed: bool
    reason: str
    container_id: str
    address: str
    since: dt.datetime | None
    created_at: dt.datetime


def app_state(app: App, last: Deployment | None, wanted: int, healthy: int) -> str:
    """One word for an app."""
    if app.deleting_at is not None:
        return "deleting"
    if last is not None and last.state in ACTIVE:
        return "deploying"
    if app.wanted == "stopped":
        return "stopped"
    if wanted:
        return "running" if healthy >= wanted else "degraded"
    return "new" if last is None else "failed"


# What app_bodies reads of an app: plans are wide, and a list of 100 would build 30 fields for each.
APP_FIELDS = (
    "slug",
    "wanted",
    "port",
    "health_path",
    "no_new_privs",
    "deploy_on_push",
    "follow_tag",
    "created_at",
    "deleting_at",
    "team__slug",
    "plan__slug",
)


def app_bodies(apps: Sequence[App]) -> list[dict[str, Any]]:
    """Apps (with team and plan loaded) as AppOut, in four more queries."""
    ids = [app.pk for app in apps]
    newest = Deployment.objects.filter(app__in=ids).values("app").annotate(last=Max("pk")).values("last")
    deployments = Deployment.objects.filter(pk__in=newest).select_related("release")
    last = {row.app_id: row for row in deployments.only("app_id", "number", "state", "reason", "release__number")}
    rows = Deployment.objects.filter(app__in=ids, state=DeploymentState.LIVE)
    live = dict(rows.order_by("number").values_list("app_id", "release__number"))
    processes: dict[int, dict[str, int]] = {}
    for app_id, name, count in Process.objects.filter(app__in=ids).values_list("app_id", "name", "count"):
        processes.setdefault(app_id, {})[name] = count
    seen: dict[int, list[str]] = {}
    for app_id, observed in Instance.objects.filter(app__in=ids, wanted="running").values_list("app_id", "observed"):
        seen.setdefault(app_id, []).append(observed)
    return [
        _app_body(app, last.get(app.pk), live.get(app.pk), processes.get(app.pk, {}), seen.get(app.pk, []))
        for app in apps
    ]


def _app_body(
    app: App, last: Deployment | None, live: int | None, processes: dict[str, int], observed: list[str]
) -> dict[str, Any]:
    healthy = observed.count("healthy")
    deployment = None
    if last is not None:
        deployment = {
            "number": last.number, "state": last.state, "release": last.release.number, "reason": last.reason,
        }  # fmt: skip
    return {
        "app": app.slug,
        "team": app.team.slug,
        "plan": app.plan.slug,
        "url": config().app_url(app.slug),
        "state": app_state(app, last, len(observed), healthy),
        "wanted": app.wanted,
        "processes": processes,
        "healthy": healthy,
        "release": live,
        "deployment": deployment,
        "port": app.port,
        "health_path": app.health_path,
        "no_new_privs": app.no_new_privs,
        "deploy_on_push": app.deploy_on_push,
        "follow_tag": app.follow_tag,
        "created_at": app.created_at,
    }


def deployment_body(row: Deployment, *, events: bool = False) -> dict[str, Any]:
    """A deployment (with app, team, release, image and creator loaded) as DeploymentOut."""
    steps = [{"state": e.state, "at": e.at, "text": e.text} for e in row.events.all()] if events else []
    names = ("number", "state", "kind", "reason", "last_log", "created_at", "state_since", "finished_at")
    return {name: getattr(row, name) for name in names} | {
        "app": row.app.slug,
        "team": row.app.team.slug,
        "release": row.release.number,
        "image": row.release.image.digest,
        "url": config().app_url(row.app.slug),
        "created_by": row.created_by.username if row.created_by else None,
        "events": steps,
    }


def release_body(row: Release, app: App, *, live: bool) -> dict[str, Any]:
    """A release (with image and creator loaded) as ReleaseOut."""
    return {
        "app": app.slug,
        "team": app.team.slug,
        "number": row.number,
        "image": row.image.digest,
        "reference": row.image.reference,
        "size_bytes": row.image.size_bytes,
        "processes": row.processes,
        "note": row.note,
        "live": live,
        "created_at": row.created_at,
        "created_by": row.created_by.username if row.created_by else None,
    }


def instance_body(row: Instance, app: App) -> dict[str, Any]:
    """An instance (with release and host loaded) as InstanceOut."""
    names = (
        "process", "ordinal", "wanted", "routed", "restarts", "exit_code", "oom_killed", "reason", "container_id",
        "address", "created_at",
    )  # fmt: skip
    return {name: getattr(row, name) for name in names} | {
        "id": row.pk,
        "app": app.slug,
        "team": app.team.slug,
        "release": row.release.number,
        "host": row.host.name,
        "state": row.observed,
        "since": row.observed_at,
    }
