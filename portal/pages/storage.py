"""Pages about what images take: a team's, and the whole store's."""

from __future__ import annotations

import shutil

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from portal import figures
from portal.accounts.access import actor_of, get_team, require_operator
from portal.audit.actions import record
from portal.config import config
from portal.images.collect import GRACE_S, UNUSED_KEPT, collect
from portal.releases.holdings import holdings, store_use
from portal.told import told

ON_A_PAGE = 50


@login_required
@require_GET
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """A team's images: what each takes, why it stays, when it goes."""
    row = get_team(actor_of(request), slug)
    found = holdings(row)
    page = Paginator(found.images, ON_A_PAGE).get_page(request.GET.get("page"))
    context = {"team": row, "found": found, "page": page, "section": "images", "kept_days": UNUSED_KEPT.days}
    return render(request, "team/images.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def store(request: HttpRequest) -> HttpResponse:
    """The whole store, and a collection at once where one is asked for."""
    actor = actor_of(request)
    require_operator(actor)
    if request.method == "POST":
        with told(request):
            gone = collect()
            record(actor, "collect", "store", "images", blobs=gone.blobs, images=gone.images, bytes=gone.freed_bytes)
        words = f"{gone.images} images and {gone.blobs} blobs went; {figures.size(gone.freed_bytes)} are free again."
        with told(request, words if gone.blobs or gone.images else "Nothing can go now."):
            return redirect("pages:storage")
    disk = shutil.disk_usage(config().portal_dir)
    context = {
        "use": store_use(), "disk": disk, "bucket": config().blobs_url.partition("?")[0], "section": "storage",
        "grace_minutes": round(GRACE_S / 60),
    }  # fmt: skip
    return render(request, "operator/storage.html", context)
