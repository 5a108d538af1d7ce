"""A team's volumes: the list with a form, and each with its size, its apps and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from portal.accounts.access import Verb, actor_of, can
from portal.accounts.actor import Actor
from portal.errors import Conflict, Invalid
from portal.plans.actions import quota_of
from portal.told import refused, told
from portal.volumes import actions, backups
from portal.volumes.access import get_backup, get_volume, team_of_volumes, volumes_of
from portal.volumes.forms import NewVolumeForm, ScheduleForm, SizeForm
from portal.volumes.host_calls import stream
from portal.volumes.models import Backup, Volume
from portal.volumes.schemas import state_of

STATUS = {
    "new": ("asleep", "Not used yet"), "here": ("live", "Ready"), "deleting": ("busy", "Being deleted"), "troubled": ("failed", "In trouble"),
}  # fmt: skip


def _row(volume: Volume) -> dict[str, Any]:
    css, word = STATUS[state_of(volume)]
    return {"volume": volume, "css": css, "word": word, "mounts": list(volume.mounts.all())}  # type: ignore[attr-defined]  # hosting.Mount, above


@login_required
@require_http_methods(["GET", "POST"])
def volumes(request: HttpRequest, slug: str) -> HttpResponse:
    """All of the team's volumes; POST makes one."""
    actor = actor_of(request)
    team = team_of_volumes(actor, slug, "read" if request.method == "GET" else "write")
    request.session["team"] = team.slug
    form = NewVolumeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            given = form.cleaned_data
            made = actions.create_volume(
                actor, team, name=given["name"].strip(), size_bytes=form.wanted_bytes, shared=given["shared"]
            )
        if form.is_valid():
            messages.success(request, f"{made.name} is there. Attach it on an app's page Volumes.")
            return redirect("volumes:list", slug)
    rows = [_row(row) for row in volumes_of(team).prefetch_related("mounts__app")]
    context = {
        "team": team, "rows": rows, "form": form, "used": actions.taken(team), "quota": quota_of(team),
        "may_write": can(actor, "write", team), "section": "volumes",
    }  # fmt: skip
    return render(request, "team/volumes.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def volume(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """One volume; POST changes its size or deletes it (`do`)."""
    actor = actor_of(request)
    needs: Verb = "read" if request.method == "GET" else "deploy" if request.POST.get("do") == "back_up" else "write"
    found = get_volume(actor, slug, name, needs)
    doing = request.POST.get("do", "")
    if doing == "delete":
        return _delete(request, found)
    if doing in _DOING:
        with told(request, _DOING[doing][1]):
            _DOING[doing][0](actor, found, request.POST)
        return redirect("volumes:volume", slug, name)
    form = SizeForm.of(found, request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form, "size_bytes"):
            actions.resize_volume(actor, found, form.wanted_bytes)
        if form.is_valid():
            messages.success(request, "The size is changed; what runs has it within seconds.")
            return redirect("volumes:volume", slug, name)
    context = _row(found) | {
        "team": found.team, "form": form, "may_write": can(actor, "write", found.team), "section": "volumes",
        "may_back_up": can(actor, "deploy", found.team), "backups": [_backup(row) for row in backups.backups_of(found)],
        "schedule": ScheduleForm(initial={"hours": found.backup_hours, "kept": found.backups_kept}),
        "restore": found.restores.select_related("backup").first(),
    }  # fmt: skip
    return render(request, "team/volume.html", context, status=422 if form.errors else 200)


def _backup(row: Backup) -> dict[str, Any]:
    words = {"waiting": ("busy", "Under way"), "done": ("live", "Done"), "failed": ("failed", "Failed")}
    css, word = words[row.state]
    return {"backup": row, "css": css, "word": word}


def _number(data: Any) -> int:
    text = data.get("backup", "")
    return int(text) if text.isdecimal() else 0


def _back_up(actor: Actor, found: Volume, data: Any) -> None:
    backups.begin_backup(actor, found)


def _restore(actor: Actor, found: Volume, data: Any) -> None:
    backup = get_backup(actor, found.team.slug, _number(data), "write")
    into = data.get("into", "").strip() if data.get("where") == "new" else ""
    if data.get("where") == "new" and not into:
        raise Invalid("Give the new volume a name.")
    backups.begin_restore(actor, backup, found, into=into)


def _delete_backup(actor: Actor, found: Volume, data: Any) -> None:
    backups.delete_backup(actor, get_backup(actor, found.team.slug, _number(data), "write"))


def _schedule(actor: Actor, found: Volume, data: Any) -> None:
    form = ScheduleForm(data)
    if not form.is_valid():
        raise Invalid(" ".join(str(error) for errors in form.errors.values() for error in errors))
    backups.set_schedule(actor, found, hours=int(form.cleaned_data["hours"]), kept=form.cleaned_data["kept"])


_DOING: dict[str, tuple[Callable[[Actor, Volume, Any], None], str]] = {
    "back_up": (_back_up, "The backup has begun."),
    "restore": (_restore, "The restore has begun; until it is whole, nothing changes."),
    "delete_backup": (_delete_backup, "The backup is deleted."),
    "schedule": (_schedule, "Saved."),
}


@login_required
@require_GET
def download(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """A backup as a file."""
    backup = get_backup(actor_of(request), slug, number, "write")
    if backup.state != "done":
        raise Conflict(f"Backup {backup.number} is {backup.state}.", "Choose one that is done.")
    return stream(backup)


def _delete(request: HttpRequest, found: Volume) -> HttpResponse:
    if request.POST.get("name", "").strip() != found.name:
        messages.error(request, f"Nothing was deleted: type {found.name} to confirm.")
        return redirect("volumes:volume", found.team.slug, found.name)
    with told(request, f"{found.name} is being deleted."):
        actions.delete_volume(actor_of(request), found)
    return redirect("volumes:list", found.team.slug)
