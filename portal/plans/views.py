"""Pages about plans. Editing one reaches running containers and is in `pages.operator`."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.accounts.access import actor_of, require_operator
from portal.plans import actions
from portal.plans.access import get_plan
from portal.plans.forms import NewPlanForm
from portal.plans.models import Plan
from portal.told import refused, told


@login_required
@require_GET
def plans(request: HttpRequest) -> HttpResponse:
    """All plans with what they give and how many apps have them."""
    require_operator(actor_of(request))
    alive = Q(apps__deleting_at=None)
    rows = Plan.objects.annotate(
        n_apps=Count("apps", filter=alive, distinct=True), n_teams=Count("apps__team", filter=alive, distinct=True)
    ).order_by("retired_at", "position", "slug")
    return render(request, "operator/plans.html", {"plans": rows, "section": "plans"})


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """A new plan."""
    actor = actor_of(request)
    require_operator(actor)
    form = NewPlanForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            actions.create_plan(actor, slug=form.cleaned_data["slug"], **form.values())
        if form.is_valid():
            with told(request, f"Plan {form.cleaned_data['name']} can be chosen now."):
                return redirect("plans:list")
    return render(
        request, "operator/plan_new.html", {"form": form, "section": "plans"}, status=422 if form.errors else 200
    )


@login_required
@require_POST
def retire(request: HttpRequest, slug: str) -> HttpResponse:
    """Offer a plan to no new app."""
    actor = actor_of(request)
    plan = get_plan(actor, slug, "operate")
    with told(request, f"Plan {plan.name} is offered to no new app; apps that have it keep it."):
        actions.retire_plan(actor, plan)
    return redirect("plans:list")
