"""The operator's pages: what the platform holds and uses, teams and their quotas, and a plan with what changing it breaks."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.accounts.access import actor_of, get_team, require_operator
from portal.accounts.actions import add_member, create_team
from portal.accounts.models import Role, Team, User
from portal.audit.models import Entry
from portal.errors import PortalError
from portal.fleet.models import Host
from portal.hosting.models import App
from portal.pages import rows
from portal.pages.usage import platform_meters, team_usage
from portal.plans.access import get_plan
from portal.plans.actions import quota_of, set_quota
from portal.plans.forms import PlanForm, QuotaForm
from portal.releases import actions
from portal.releases.models import Deployment, DeploymentState
from portal.telemetry import redis
from portal.told import refused, sentence, told
from worker.protocol import MetricSample, metric_stream

RECENT = 6


class TeamForm(forms.Form):
    """A new team and its first owner."""

    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs={"placeholder": "Harbour Lab"}))
    slug = forms.SlugField(
        label="Short name", max_length=40, widget=forms.TextInput(attrs={"placeholder": "harbour-lab"}),
        help_text="Lower-case letters, digits and hyphens; images are stored under it.",
        error_messages={"invalid": "Use lower-case letters, digits and hyphens only."},
    )  # fmt: skip
    owner = forms.ModelChoiceField(
        User.objects.filter(is_active=True).order_by("username"), to_field_name="username", empty_label=None
    )


@login_required
@require_GET
def overview(request: HttpRequest) -> HttpResponse:
    """What hosts have, what is reserved of it, who uses it, what went wrong today."""
    require_operator(actor_of(request))
    hosts = list(Host.objects.order_by("name"))
    since = timezone.now() - dt.timedelta(days=1)
    failed = Deployment.objects.filter(state=DeploymentState.FAILED, created_at__gte=since)
    context = {
        "meters": platform_meters(hosts), "hosts": hosts, "usage": team_usage()[:RECENT], "n_teams": Team.objects.count(),
        "n_apps": App.objects.filter(deleting_at=None).count(), "failed": failed.select_related("app__team").order_by("-created_at")[:RECENT],
        "entries": Entry.objects.select_related("user").order_by("-at")[:RECENT], "section": "overview",
    }  # fmt: skip
    return render(request, "operator/overview.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def teams(request: HttpRequest) -> HttpResponse:
    """Every team with what it has reserved of its quota; makes new ones."""
    actor = actor_of(request)
    require_operator(actor)
    form = TeamForm(request.POST or None, initial={"owner": actor.user.username if actor.user else ""})
    if request.method == "POST" and form.is_valid():
        with refused(form):
            create_team(actor, **form.cleaned_data)
        if form.is_valid():
            with told(request, f"Team {form.cleaned_data['name']} is there, with the usual quota."):
                return redirect("pages:team", form.cleaned_data["slug"])
    context = {"form": form, "usage": team_usage(), "section": "teams"}
    return render(request, "operator/teams.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """A team's quota beside what it uses, and its members."""
    actor = actor_of(request)
    row = get_team(actor, slug, "operate")
    form = QuotaForm(request.POST or None, row=quota_of(row))
    if request.method == "POST" and form.is_valid():
        with refused(form):
            set_quota(actor, row, **form.figures())
        if form.is_valid():
            with told(request, f"The quota of {row.name} is saved. What runs goes on; more is refused beyond it."):
                return redirect("pages:team", slug)
    members = row.memberships.select_related("user").order_by("created_at")
    others = User.objects.filter(is_active=True).exclude(memberships__team=row).order_by("username")
    context = {
        "shown_team": row, "form": form, "meters": rows.meters(row), "members": members, "others": others,
        "roles": Role.choices, "n_apps": row.apps.filter(deleting_at=None).count(), "section": "teams",
    }  # fmt: skip
    return render(request, "operator/team.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    """Give a person a role in a team."""
    actor = actor_of(request)
    row = get_team(actor, slug, "operate")
    user = User.objects.filter(username=request.POST.get("user", ""), is_active=True).first()
    if user is not None:
        with told(request, f"{user.username} is in {row.name} now."):
            add_member(actor, row, user, request.POST.get("role", ""))
    return redirect("pages:team", slug)


@login_required
@require_http_methods(["GET", "POST"])
def plan(request: HttpRequest, slug: str) -> HttpResponse:
    """Every limit of a plan; saving reaches running containers within seconds."""
    actor = actor_of(request)
    row = get_plan(actor, slug, "operate")
    form = PlanForm(request.POST or None, row=row)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            saved = actions.change_plan(actor, row, form.values())
        if form.is_valid():
            with told(
                request,
                f"Plan {saved.name} is saved as version {saved.version}; running containers have it within seconds.",
            ):
                return redirect("pages:plan", slug)
    users = App.objects.filter(plan=row, deleting_at=None).aggregate(
        apps=Count("pk"), teams=Count("team", distinct=True)
    )
    context = {"plan": row, "form": form, "users": users, "section": "plans"} | _effects(form, row)
    return render(request, "operator/plan.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def effects(request: HttpRequest, slug: str) -> HttpResponse:
    """The list "If you save this", made anew while the figures are typed."""
    row = get_plan(actor_of(request), slug, "operate")
    form = PlanForm(request.POST, row=row)
    return render(request, "parts/effects.html", {"plan": row} | _effects(form, row))


def _effects(form: PlanForm, row: Any) -> dict[str, Any]:
    if not form.is_bound:
        return {"effects": [], "changed": []}
    if not form.is_valid():
        return {"effects": [], "changed": [], "trouble": "Some figures cannot be used: see the fields."}
    values = form.values()
    changed = [str(form[name].label) for name, value in values.items() if getattr(row, name) != value]
    try:
        found = actions.plan_effects(row, values, newest_sample)
    except PortalError as error:
        return {"effects": [], "changed": changed, "trouble": sentence(error)}
    return {"effects": found, "changed": changed, "breaking": sum(effect.breaks for effect in found)}


def newest_sample(instance: str) -> MetricSample | None:
    """What the instance used two seconds ago; None when nothing was measured."""
    rows: Any = redis.client().xrevrange(metric_stream(instance), count=1)
    return MetricSample.unpack(rows[0][1][b"s"]) if rows else None
