"""Pages that look at what an app says and uses."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.accounts.access import actor_of
from portal.hosting.access import get_app
from portal.releases.shown import shown
from portal.telemetry import log_answers
from portal.telemetry.instances import labels
from portal.telemetry.lines import Cursor

DOWNLOAD_LINES = 10_000

WINDOWS = {
    "10m": (600, "10 min"),
    "1h": (3600, "1 hour"),
    "6h": (6 * 3600, "6 hours"),
    "24h": (86400, "1 day"),
    "7d": (7 * 86400, "7 days"),
}


@login_required
@require_GET
def logs(request: HttpRequest, slug: str) -> HttpResponse:
    """The live log in full, to filter, pause and download."""
    app = get_app(actor_of(request), slug)
    context = shown(request, app, "logs")
    context["names"] = labels(app.pk) | context["names"]
    return render(request, "apps/logs.html", context)


@login_required
@require_GET
def metrics(request: HttpRequest, slug: str) -> HttpResponse:
    """Every dimension of the plan as a chart, over a window."""
    app = get_app(actor_of(request), slug)
    chosen = request.GET.get("window", "1h")
    chosen = chosen if chosen in WINDOWS else "1h"
    context = shown(request, app, "metrics")
    context["names"] = labels(app.pk) | context["names"]
    context |= {
        "windows": [(key, words) for key, (_, words) in WINDOWS.items()],
        "chosen": chosen,
        "window_s": WINDOWS[chosen][0],
    }
    return render(request, "apps/metrics.html", context)


@login_required
@require_GET
def download(request: HttpRequest, slug: str) -> HttpResponse:
    """The newest lines of the live streams as a text file; its head says when older ones have left the streams."""
    app = get_app(actor_of(request), slug)
    found = log_answers.page(app, Cursor(), DOWNLOAD_LINES, "")
    names = labels(app.pk)
    note = log_answers.headers(found.complete_since).get("Moorage-Log-Note")
    head = f"# {note}\n" if note else ""
    text = head + "".join(log_answers.as_text(line, names) for line in found.lines)
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{app.slug}.log"'
    response["Cache-Control"] = "no-store"
    return response
