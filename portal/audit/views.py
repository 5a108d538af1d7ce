"""The audit trail as a page."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.accounts.access import actor_of, require_operator
from portal.audit.models import Entry

ON_A_PAGE = 50


@login_required
@require_GET
def entries(request: HttpRequest) -> HttpResponse:
    """Who did what through which door, newest first (operators); `find` narrows by team, person, verb or object."""
    require_operator(actor_of(request))
    rows = Entry.objects.select_related("user").order_by("-at", "-pk")
    kinds = {"team": "team_slug", "user": "user__username", "verb": "verb", "object": "object_name"}
    chosen = {key: request.GET[key].strip() for key in kinds if request.GET.get(key, "").strip()}
    for key, value in chosen.items():
        rows = rows.filter(**{kinds[key]: value})
    page = Paginator(rows, ON_A_PAGE).get_page(request.GET.get("page"))
    return render(request, "operator/audit.html", {"page": page, "chosen": chosen, "section": "audit"})
