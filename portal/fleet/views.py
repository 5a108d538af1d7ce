"""The page of hosts."""

from __future__ import annotations

import datetime as dt

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from portal.accounts.access import actor_of, require_operator
from portal.fleet.models import Host

SILENT_AFTER = dt.timedelta(seconds=60)


@login_required
@require_GET
def hosts(request: HttpRequest) -> HttpResponse:
    """Every host: whether it reports, what it has, what runs there."""
    require_operator(actor_of(request))
    rows = Host.objects.annotate(n_instances=Count("instances", filter=Q(instances__wanted="running"))).order_by("name")
    silent = timezone.now() - SILENT_AFTER
    context = {"hosts": [(row, row.seen_at is None or row.seen_at < silent) for row in rows], "section": "hosts"}
    return render(request, "operator/hosts.html", context)
