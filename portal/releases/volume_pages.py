"""The page Volumes of an app: what it has, attach, detach."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from portal.accounts.access import actor_of
from portal.accounts.actor import Actor
from portal.errors import NotFound
from portal.hosting.access import get_app
from portal.hosting.models import App, Mount
from portal.hosting.mounts import exclusive_volumes
from portal.releases.models import Deployment
from portal.releases.mounting import attach, detach
from portal.releases.shown import shown
from portal.told import refused, told
from portal.volumes.access import volumes_of
from portal.volumes.forms import AttachForm


@login_required
@require_http_methods(["GET", "POST"])
def volumes(request: HttpRequest, slug: str) -> HttpResponse:
    """The app's volumes. POST attaches one, or detaches one (`do`)."""
    actor = actor_of(request)
    app = get_app(actor, slug, "read" if request.method == "GET" else "write")
    if request.POST.get("do") == "detach":
        return _detach(request, actor, app)
    choices = volumes_of(app.team).filter(deleting_at=None)
    form = AttachForm(request.POST or None, volumes=choices)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            given = form.cleaned_data
            _, begun = attach(
                actor, app, given["volume"], path=given["path"], subpath=given["subpath"], read_only=given["read_only"],
                deploy=request.POST.get("redeploy") == "on",
            )  # fmt: skip
        if form.is_valid():
            _say(request, f"{given['volume'].name} is attached", begun)
            return redirect("releases:volumes", slug)
    context = shown(request, app, "volumes") | {
        "mounts": Mount.objects.filter(app=app).select_related("volume"), "form": form, "choices": choices.exists(),
        "exclusive": exclusive_volumes(app),
    }  # fmt: skip
    return render(request, "apps/volumes.html", context, status=422 if form.errors else 200)


def _detach(request: HttpRequest, actor: Actor, app: App) -> HttpResponse:
    number = request.POST.get("mount", "")
    mount = Mount.objects.filter(app=app, pk=int(number) if number.isdecimal() else 0).select_related("volume").first()
    if mount is None:
        raise NotFound(f"{app.slug} does not have this volume any more.")
    name = mount.volume.name
    with told(request):
        begun = detach(actor, app, mount, deploy=request.POST.get("redeploy") == "on")
        _say(request, f"{name} is detached; all that is in it stays", begun)
    return redirect("releases:volumes", app.slug)


def _say(request: HttpRequest, what: str, begun: Deployment | None) -> None:
    messages.success(
        request, f"{what}; it is being deployed." if begun else f"{what}; it counts from the next deployment on."
    )
