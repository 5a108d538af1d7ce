"""What an open page is told when its app changed: the state itself, so that it need not ask."""

from __future__ import annotations

from typing import Any

from portal.hosting.models import App
from portal.releases.models import Deployment, DeploymentEvent, Instance
from portal.releases.shown import instances_shown
from portal.releases.summary import gist
from portal.telemetry.models import LimitEvent


def first(app: App) -> dict[str, Any]:
    """The state as it is, for a page that opens: with the gist of it, in which the page sees what changed since it was made."""
    app.refresh_from_db(fields=["wanted"])
    last = Deployment.objects.filter(app=app).order_by("-number").first()
    now = gist(app, last, instances_shown(app)) | {"limits": newest_limit(app.pk)}
    return change(app.pk, "deployment") | {"gist": now}


def newest_limit(app_id: int) -> str:
    """When a limit was hit last, "" for never."""
    event = LimitEvent.objects.filter(app_id=app_id).order_by("-at").first()
    return event.at.isoformat() if event else ""


def change(app_id: int, what: str) -> dict[str, Any]:
    """The message for a hint: `{what, …}` with the deployment, the instances or the newest limit event in it."""
    message: dict[str, Any] = {"what": what}
    if what == "deployment":
        message["deployment"] = deployment(app_id)
    if what in ("deployment", "instances"):
        message["instances"] = instances(app_id)
    if what == "limits":
        event = LimitEvent.objects.filter(app_id=app_id).order_by("-at").first()
        message["event"] = event_json(event) if event is not None else None
    return message


def deployment(app_id: int) -> dict[str, Any] | None:
    """The newest deployment with its steps so far."""
    row = Deployment.objects.filter(app_id=app_id).select_related("release").order_by("-number").first()
    if row is None:
        return None
    steps = DeploymentEvent.objects.filter(deployment=row)
    return {
        "number": row.number,
        "release": row.release.number,
        "kind": row.kind,
        "state": row.state,
        "state_since": row.state_since.timestamp(),
        "reason": row.reason,
        "last_log": row.last_log,
        "events": [{"state": step.state, "at": step.at.timestamp(), "text": step.text} for step in steps],
    }


def instances(app_id: int) -> list[dict[str, Any]]:
    """The app's instances as a page lists them."""
    rows = Instance.objects.filter(app_id=app_id).select_related("host", "release").order_by("process", "ordinal")
    return [
        {
            "id": row.pk,
            "name": f"{row.process}.{row.ordinal}",
            "release": row.release.number,
            "host": row.host.name,
            "wanted": row.wanted,
            "observed": row.observed,
            "routed": row.routed,
            "restarts": row.restarts,
            "exit_code": row.exit_code,
            "oom_killed": row.oom_killed,
            "reason": row.reason,
        }
        for row in rows
    ]


def event_json(event: LimitEvent) -> dict[str, Any]:
    """A limit event as the API and pages have it."""
    return {
        "instance": event.instance,
        "limit": event.limit,
        "level": event.level,
        "used": event.used,
        "allowed": event.allowed,
        "process": event.process,
        "sentence": event.sentence,
        "at": event.at.timestamp(),
        "since": event.began.timestamp(),
    }
