"""Pages that show several apps' rows together: a team's apps, and an app's overview with its live parts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from portal.accounts.access import actor_of, can, get_team
from portal.hosting.access import get_app, visible_apps
from portal.pages import rows
from portal.pages.sidebar import navigation
from portal.releases.shown import shown
from portal.releases.summary import (
    ENDED,
    KINDS,
    instance_status,
    steps,
)
from portal.telemetry import live_state

NOTICES = 3
NOTICE_AGE = dt.timedelta(hours=24)


@login_required
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """The apps of the team looked at last."""
    team = navigation(request, None)["team"]
    if team is None:
        return render(request, "apps/no_team.html", {"section": "apps"})
    return redirect("pages:apps", team.slug)


@login_required
@require_GET
def apps(request: HttpRequest, slug: str) -> HttpResponse:
    """A team's apps and what it has left of its quota."""
    actor = actor_of(request)
    team = get_team(actor, slug)
    request.session["team"] = team.slug
    meters = rows.meters(team)
    context = {
        "team": team, "rows": rows.app_rows(visible_apps(actor, team=team)), "meters": meters,
        "tight": rows.tight(meters), "may_write": can(actor, "write", team), "section": "apps",
    }  # fmt: skip
    return render(request, "parts/apps.html" if request.headers.get("HX-Request") else "apps/list.html", context)


def _deployment(context: dict[str, Any]) -> dict[str, Any]:
    last = context["last"]
    recent = last is not None and (
        last.state not in ENDED or timezone.now() - (last.finished_at or last.created_at) < NOTICE_AGE
    )
    if not recent:
        return {}
    events = list(last.events.all())
    return {
        "deployment": last,
        "steps": steps(last, events),
        "ended": last.state in ENDED,
        "doing": KINDS.get(last.kind, "Deploying"),
    }


def _instances(context: dict[str, Any]) -> dict[str, Any]:
    return {"rows": [(row, instance_status(row), context["names"][row.id]) for row in context["instances"]]}


def _limits(context: dict[str, Any]) -> dict[str, Any]:
    app = context["app"]
    context["gist"]["limits"] = live_state.newest_limit(app.pk)
    since = timezone.now() - NOTICE_AGE
    found = list(app.limit_events.filter(at__gte=since)[:NOTICES])
    return {"limits": [(event, context["names"].get(event.instance, "")) for event in found]}


def _nothing(context: dict[str, Any]) -> dict[str, Any]:
    return {}


PARTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "deployment": _deployment,
    "instances": _instances,
    "limits": _limits,
    "head": _nothing,
}


@login_required
@require_GET
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """An app: its deployment, notices, charts, log and instances, all of them live."""
    context = shown(request, get_app(actor_of(request), slug), "overview")
    if context["last"] is None and context["may_deploy"]:
        return redirect("releases:deploy", slug)
    for load in PARTS.values():
        context |= load(context)
    return render(request, "apps/overview.html", context)


@login_required
@require_GET
def part(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """One part of the overview, loaded anew when the platform hints that it changed."""
    if name not in PARTS:
        raise Http404
    context = shown(request, get_app(actor_of(request), slug), "overview")
    return render(request, f"parts/{name}.html", context | PARTS[name](context))
