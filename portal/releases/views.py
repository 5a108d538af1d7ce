"""Pages of one app: deployments, releases, instances, and the buttons that start, stop and change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.access import Verb, actor_of
from portal.accounts.actor import Actor
from portal.hosting.access import get_app
from portal.hosting.models import App
from portal.releases import actions
from portal.releases.access import get_deployment, get_release
from portal.releases.changes import changes
from portal.releases.forms import PlanChoice, ScaleForm
from portal.releases.models import Release
from portal.releases.shown import shown
from portal.releases.summary import ENDED, KINDS, deployment_status, instance_status, steps
from portal.told import told

ON_A_PAGE = 25


@login_required
@require_GET
def deployments(request: HttpRequest, slug: str) -> HttpResponse:
    """Every deployment of the app, newest first."""
    app = get_app(actor_of(request), slug)
    rows = app.deployments.select_related("release__image", "created_by")
    page = Paginator(rows, ON_A_PAGE).get_page(request.GET.get("page"))
    listed = [
        (row, deployment_status(row), row.finished_at and (row.finished_at - row.created_at).total_seconds())
        for row in page
    ]
    return render(request, "apps/deployments.html", shown(request, app, "deployments") | {"page": page, "rows": listed})


@login_required
@require_GET
def deployment(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One deployment: its steps, and why it failed."""
    row = get_deployment(actor_of(request), slug, number)
    context = shown(request, row.app, "deployments") | {
        "deployment": row, "steps": steps(row, list(row.events.all())), "ended": row.state in ENDED,
        "doing": KINDS.get(row.kind, "Deploying"), "row_status": deployment_status(row), "alone": True,
    }  # fmt: skip
    return render(request, "apps/deployment.html", context)


@login_required
@require_GET
def releases(request: HttpRequest, slug: str) -> HttpResponse:
    """Every release of the app; each older one is a roll back away."""
    app = get_app(actor_of(request), slug)
    rows = app.releases.select_related("image", "created_by")
    page = Paginator(rows, ON_A_PAGE).get_page(request.GET.get("page"))
    return render(request, "apps/releases.html", shown(request, app, "releases") | {"page": page})


@login_required
def rollback(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """GET: the dialog with the difference. POST: do it."""
    actor = actor_of(request)
    target = get_release(actor, slug, number, "deploy")
    if request.method == "POST":
        with told(request):
            actions.rollback(actor, target.app, number)
        return redirect("pages:overview", slug)
    context = shown(request, target.app, "releases")
    serving = Release.objects.select_related("image").filter(app=target.app, number=context["release"] or 0).first()
    context |= {"target": target, "serving": serving, "changes": changes(serving, target)}
    return render(request, "parts/rollback.html", context)


@login_required
@require_GET
def instances(request: HttpRequest, slug: str) -> HttpResponse:
    """Every container of the app: state, host, release, figures."""
    context = shown(request, get_app(actor_of(request), slug), "instances")
    context["rows"] = [(row, instance_status(row), context["names"][row.id]) for row in context["instances"]]
    return render(request, "apps/instances.html", context)


def _start(actor: Actor, app: App, data: Any) -> str:
    return "" if actions.start(actor, app) else f"{app.slug} runs already."


def _stop(actor: Actor, app: App, data: Any) -> str:
    actions.stop(actor, app)
    return f"{app.slug} is being stopped: it is out of the route, its instances drain."


def _restart(actor: Actor, app: App, data: Any) -> str:
    actions.restart(actor, app)
    return ""


def _delete(actor: Actor, app: App, data: Any) -> str:
    actions.delete_app(actor, app)
    return f"{app.slug} is being deleted. The name is free once its last container is gone."


def _scale(actor: Actor, app: App, data: Any) -> str:
    form = ScaleForm(data, app=app)
    if not form.is_valid():
        return " ".join(str(error) for error in form.errors["web"])
    actions.scale(actor, app, {"web": form.cleaned_data["web"]})
    return f"{app.slug} is to have {form.cleaned_data['web']} instance{'' if form.cleaned_data['web'] == 1 else 's'}."


def _plan(actor: Actor, app: App, data: Any) -> str:
    form = PlanChoice(data, app=app)
    if not form.is_valid():
        return " ".join(str(error) for error in form.errors["plan"])
    actions.move_to_plan(actor, app, form.cleaned_data["plan"])
    return f"{app.slug} has plan {form.cleaned_data['plan'].name}; running containers get its limits within seconds."


# What is done, the right it needs, and the page that follows.
_DOING: dict[str, tuple[Callable[[Actor, App, Any], str], Verb, str]] = {
    "start": (_start, "deploy", "pages:overview"),
    "stop": (_stop, "deploy", "pages:overview"),
    "restart": (_restart, "deploy", "pages:overview"),
    "scale": (_scale, "write", "releases:settings"),
    "plan": (_plan, "write", "releases:settings"),
    "delete": (_delete, "write", "pages:apps"),
}


@login_required
@require_POST
def do(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """Start, stop, restart, scale, plan, delete: one action, then the page that shows it."""
    function, verb, following = _DOING[name]
    actor = actor_of(request)
    app = get_app(actor, slug, verb)
    if name == "delete" and request.POST.get("name", "").strip() != app.slug:
        messages.error(request, f"Nothing was deleted: type {app.slug} to confirm.")
        return redirect("releases:settings", slug)
    with told(request):
        said = function(actor, app, request.POST)
        if said:
            messages.info(request, said)
    return redirect(following, app.team.slug if following == "pages:apps" else slug)


@login_required
@require_POST
def cancel(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """End a deployment under way."""
    actor = actor_of(request)
    row = get_deployment(actor, slug, number, "deploy")
    with told(request):
        actions.cancel(actor, row)
    return redirect("pages:overview", slug)
