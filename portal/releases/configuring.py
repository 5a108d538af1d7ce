"""The pages Environment and Settings of an app."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from portal.accounts.access import actor_of
from portal.accounts.actor import Actor
from portal.errors import PortalError
from portal.hosting import actions as hosting
from portal.hosting.access import get_app
from portal.hosting.dotenv import parse_dotenv
from portal.hosting.environment import MASK
from portal.hosting.forms import PushForm, SettingsForm, VariableForm
from portal.hosting.models import App, Process
from portal.plans.models import Plan
from portal.releases import actions
from portal.releases.forms import ScaleForm
from portal.releases.shown import shown
from portal.told import refused, sentence, told


@login_required
@require_http_methods(["GET", "POST"])
def environment(request: HttpRequest, slug: str) -> HttpResponse:
    """Variables, masked; set, remove, import a .env. Changes count after a redeploy, which is the default."""
    actor = actor_of(request)
    app = get_app(actor, slug, "read" if request.method == "GET" else "write")
    form, pasted, trouble = VariableForm(), "", ""
    if request.method == "POST":
        form, pasted, trouble, done = _changed(request, actor, app)
        if done:
            return redirect("releases:environment", slug)
    context = shown(request, app, "environment") | {
        "variables": app.environment.only("key", "updated_at"), "mask": MASK, "form": form, "pasted": pasted, "trouble": trouble,
    }  # fmt: skip
    return render(request, "apps/environment.html", context, status=422 if trouble or form.errors else 200)


def _changed(request: HttpRequest, actor: Actor, app: App) -> tuple[VariableForm, str, str, bool]:
    """Form, pasted text and trouble to show again; True when it was done."""
    doing = request.POST.get("do", "set")
    if doing == "import":
        pasted = request.POST.get("environment", "")
        try:
            found = parse_dotenv(pasted)
            if not found:
                return VariableForm(), pasted, "There is no KEY=value in what you pasted.", False
            _apply(request, actor, app, found)
        except PortalError as error:
            return VariableForm(), pasted, sentence(error), False
        return VariableForm(), "", "", True
    form = VariableForm(request.POST)
    if form.is_valid():
        value = None if doing == "remove" else form.cleaned_data["value"]
        with refused(form, "key"):
            _apply(request, actor, app, {form.cleaned_data["key"]: value})
    return form, "", "", form.is_valid()


def _apply(request: HttpRequest, actor: Actor, app: App, changes: Mapping[str, str | None]) -> None:
    changed = hosting.set_env(actor, app, changes)
    if not changed:
        messages.info(request, "Nothing changed: the values are what they were.")
        return
    names = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    if not _redeploy(request, actor, app, "environment"):
        messages.success(request, f"{names} changed; it counts from the next deployment on.")
        return
    messages.success(request, f"{names} changed; a new release is being deployed.")


def _redeploy(request: HttpRequest, actor: Actor, app: App, kind: str) -> bool:
    """Deploy the newest image with the present configuration, when that was asked for and something runs."""
    if request.POST.get("redeploy") != "on" or app.wanted != "running" or not app.releases.exists():
        return False
    with told(request):
        actions.redeploy(actor, app, kind=kind)
        return True
    return False


@login_required
@require_http_methods(["GET", "POST"])
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Plan, count, port, health, pushes, running, deletion. POST changes port and health, or pushes; the rest has its own addresses."""
    actor = actor_of(request)
    app = get_app(actor, slug, "read" if request.method == "GET" else "write")
    pushes = request.POST.get("do") == "push"
    push_form = PushForm.of(app, request.POST if pushes else None)
    if pushes and push_form.is_valid():
        with refused(push_form):
            hosting.update_app(actor, app, **push_form.cleaned_data)
        if push_form.is_valid():
            messages.success(request, _said_of_pushes(app))
            return redirect("releases:settings", slug)
    form = SettingsForm.of(app, None if pushes else request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            hosting.update_app(actor, app, **form.cleaned_data)
        if form.is_valid():
            again = _redeploy(request, actor, app, "deploy")
            messages.success(
                request,
                "Saved; a new release is being deployed." if again else "Saved; it counts from the next deployment on.",
            )
            return redirect("releases:settings", slug)
    count = sum(Process.objects.filter(app=app, name="web").values_list("count", flat=True)) or 1
    plans = list(Plan.objects.filter(retired_at=None))
    context = shown(request, app, "settings") | {
        "form": form, "push_form": push_form, "registry": request.get_host(), "scale": ScaleForm(app=app, initial={"web": count}), "count": count,
        "plans": plans if app.plan in plans else [app.plan, *plans],
    }  # fmt: skip
    return render(request, "apps/settings.html", context, status=422 if form.errors or push_form.errors else 200)


def _said_of_pushes(app: App) -> str:
    if app.deploy_on_push:
        return f"Saved; a push of {app.slug}:{app.follow_tag} is deployed from now on."
    return "Saved; pushes are kept and wait to be deployed."
