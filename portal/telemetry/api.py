"""Looking at an app by REST: logs, metrics, limit events; and the platform's figures for Prometheus."""

from __future__ import annotations

import time
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from portal.accounts.access import actor_of_headers
from portal.accounts.actor import Actor
from portal.errors import Invalid
from portal.hosting.access import get_app
from portal.telemetry import instances, log_answers
from portal.telemetry.history import history_json
from portal.telemetry.live_state import event_json
from portal.telemetry.models import LimitEvent
from portal.telemetry.since import cursor_of, window_s
from portal.telemetry.viewer import Viewer

router = Router(tags=["look"])

NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
_Lines = Annotated[int, Query(ge=1, le=5000, description="How many lines at most")]


def _actor(request: HttpRequest) -> Actor:
    actor: Actor = request.auth  # type: ignore[attr-defined]  # set by ninja from ApiAuth
    return actor


def _again(request: HttpRequest) -> Actor:
    """The actor as token or session stand now, long after the request began."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return actor_of_headers(headers, method="GET")


def _form(request: HttpRequest, *, follow: bool) -> str:
    """json, ndjson or text, as the Accept header prefers; curl's `*/*` gets JSON, or text when it follows."""
    accept = request.headers.get("Accept", "*/*")
    for kind, mark in (("ndjson", "ndjson"), ("text", "text/plain"), ("json", "application/json")):
        if mark in accept:
            return "ndjson" if kind == "json" and follow else kind
    return "text" if follow else "json"


@router.get("/apps/{app}/logs", summary="Lines of an app's log")
def logs(
    request: HttpRequest, app: str, since: str = "", limit: _Lines = 200, follow: bool = False, instance: str = ""
) -> HttpResponseBase:
    """The last `limit` lines, or the first after `since`: the `next` of an earlier answer, a line's id, `10m`, or a time.

    With `follow` the answer goes on until the client leaves: text, or NDJSON when Accept asks for it.
    """
    return _logs(request, app, since, limit, follow=follow, instance=instance)


def _logs(request: HttpRequest, slug: str, begin: str, limit: int, *, follow: bool, instance: str) -> HttpResponseBase:
    app = get_app(_actor(request), slug)
    cursor = cursor_of(begin, time.time())
    if instance and instance not in (names := instances.names(app.pk)):
        raise Invalid(
            f"{slug} has no instance {instance[:63]!r}.", f"Give one of {', '.join(names[:10]) or 'none yet'}."
        )
    form = _form(request, follow=follow)
    if follow:
        line_form = log_answers.as_ndjson if form == "ndjson" else log_answers.as_text
        viewer = Viewer(cursor, instance=instance)
        lines = log_answers.stream(app, viewer, limit, line_form, lambda: get_app(_again(request), slug))
        kind = NDJSON if form == "ndjson" else TEXT
        return StreamingHttpResponse(lines, content_type=kind, headers={"Cache-Control": "no-store"})
    return _page(
        log_answers.page(app, cursor, limit, instance), instances.labels(app.pk), app.slug, app.team.slug, form
    )


def _page(found: log_answers.Page, names: dict[str, str], slug: str, team: str, form: str) -> HttpResponse:
    headers = log_answers.headers(found.complete_since) | {"Cache-Control": "no-store"}
    if form == "json":
        lines = [log_answers.line_json(line, names) for line in found.lines]
        return JsonResponse({"app": slug, "team": team, "lines": lines, "next": str(found.next)}, headers=headers)
    make = log_answers.as_ndjson if form == "ndjson" else log_answers.as_text
    text = "".join(make(line, names) for line in found.lines)
    return HttpResponse(text, content_type=NDJSON if form == "ndjson" else TEXT, headers=headers)


@router.get("/apps/{app}/metrics", summary="What an app used")
def metrics(request: HttpRequest, app: str, window: str = "1h") -> dict[str, Any]:
    """Points of each instance, at most 300, with the plan's limits. An hour and less comes from 2 s samples."""
    return history_json(get_app(_actor(request), app), window_s(window))


@router.get("/apps/{app}/limit-events", summary="Limits that were hit")
def limit_events(request: HttpRequest, app: str, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> dict[str, Any]:
    """The newest first, each with its sentence; kept for 30 days."""
    row = get_app(_actor(request), app)
    events = LimitEvent.objects.filter(app=row)[:limit]
    return {"app": row.slug, "team": row.team.slug, "events": [event_json(event) for event in events]}
