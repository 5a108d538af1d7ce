"""The page that makes an app."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from portal.accounts.access import actor_of, get_team
from portal.config import config
from portal.hosting import actions
from portal.hosting.forms import NewAppForm
from portal.plans.models import Plan
from portal.told import refused


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Name, plan, image. The page's script posts the first two as soon as an image is chosen, and asks for JSON."""
    actor = actor_of(request)
    team = get_team(actor, slug, "write")
    form = NewAppForm(request.POST or None)
    wants_json = request.headers.get("Accept", "").startswith("application/json")
    if request.method == "POST" and form.is_valid():
        with refused(form, "slug"):
            app = actions.create_app(actor, team, slug=form.cleaned_data["slug"], plan=form.cleaned_data["plan"])
        if form.is_valid():
            address = reverse("releases:deploy", args=[app.slug])
            made = {"app": app.slug, "address": address, "url": config().app_url(app.slug)}
            return JsonResponse(made, status=201) if wants_json else redirect(address)
    if form.errors and wants_json:
        return JsonResponse({"errors": form.errors}, status=422)
    plans = list(Plan.objects.filter(retired_at=None))
    chosen = form["plan"].value() or next(
        (plan.slug for plan in plans if plan.is_default), plans[0].slug if plans else ""
    )
    context = {"team": team, "form": form, "plans": plans, "chosen": chosen, "section": "apps"}
    return render(request, "apps/new.html", context, status=422 if form.errors else 200)
