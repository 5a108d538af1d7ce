"""The page an image is deployed from: upload, what it says, whether it fits, and the button."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from portal.accounts.access import actor_of
from portal.errors import PortalError
from portal.hosting.access import get_app
from portal.hosting.actions import set_env
from portal.hosting.dotenv import parse_dotenv
from portal.hosting.models import App, Process
from portal.hosting.usage import plan_sums, reserved_by
from portal.images.models import Image
from portal.plans.actions import quota_of, sums_of
from portal.plans.check import fits
from portal.releases import actions
from portal.releases.making import command_of
from portal.releases.shown import shown
from portal.told import sentence

RECENT = 5


@login_required
@require_http_methods(["GET", "POST"])
def deploy(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose or upload an image, see what it says, deploy it."""
    actor = actor_of(request)
    app = get_app(actor, slug, "deploy")
    trouble, pasted = "", request.POST.get("environment", "")
    if request.method == "POST":
        image = get_object_or_404(_images(app), pk=request.POST.get("image") or 0)
        try:
            if pasted.strip():
                set_env(actor, app, parse_dotenv(pasted))
            actions.deploy(actor, app, image, command=command_of(request.POST.get("command", "")))
            return redirect("pages:overview", slug)
        except PortalError as error:
            trouble = sentence(error)
    context = shown(request, app, "deploy") | {
        "images": list(_images(app)[:RECENT]), "n_variables": app.environment.count(), "trouble": trouble, "pasted": pasted,
    }  # fmt: skip
    if trouble:
        context |= _card(app, image) | {"given": request.POST.get("command", "")}
    return render(request, "apps/deploy.html", context, status=422 if trouble else 200)


@login_required
@require_GET
def image(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """What one image of the app says, as a part of the deploy page."""
    app = get_app(actor_of(request), slug, "deploy")
    context = {"app": app, "part": True} | _card(app, get_object_or_404(_images(app), pk=pk))
    return render(request, "parts/image.html", context)


def _images(app: App) -> Any:
    rows = Image.objects.filter(team=app.team, repository=f"{app.team.slug}/{app.slug}", kind="image")
    return rows.order_by("-created_at")


def _card(app: App, image: Image) -> dict[str, Any]:
    count = sum(Process.objects.filter(app=app).values_list("count", flat=True)) or 1
    used, wanted = reserved_by(app.team, without_app=app.pk), plan_sums(app.plan, count, apps=1)
    quota = sums_of(quota_of(app.team))
    config = image.config
    port = app.port or config.get("port") or 8080
    source = "set for the app" if app.port else "from EXPOSE" if config.get("port") else "usual, the image names none"
    return {
        "image": image, "config": config, "port": port, "port_source": source, "count": count, "short": fits(quota, used, wanted),
        "health": _health(app, config), "quota": quota, "after": used + wanted, "command": " ".join(config.get("command") or ()),
        "layers": config.get("layers") or [],
    }  # fmt: skip


def _health(app: App, config: dict[str, Any]) -> str:
    if app.health_path:
        return f"GET {app.health_path} below 400"
    return (
        "the port accepts connections"
        if not config.get("healthcheck")
        else "the port accepts connections; HEALTHCHECK is kept"
    )
