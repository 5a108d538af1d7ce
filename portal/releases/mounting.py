"""Giving volumes to apps and taking them away: the app's next instances have them, so both deploy anew."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Sum

from portal.accounts.access import require
from portal.accounts.actor import Actor
from portal.audit.actions import record
from portal.errors import Conflict, Invalid, OverQuota
from portal.hosting.models import App, Mount, Process
from portal.hosting.mounts import check_path, check_subpath, check_writers
from portal.releases.actions import redeploy
from portal.releases.models import Deployment, Release
from portal.volumes.models import Volume


@transaction.atomic
def attach(
    actor: Actor,
    app: App,
    volume: Volume,
    *,
    path: str,
    read_only: bool = False,
    subpath: str = "",
    deploy: bool = True,
) -> tuple[Mount, Deployment | None]:
    """Mount a volume in an app at `path` (verb write), and deploy that when something runs.

    Raises Conflict for a taken path, a volume that another app writes to or more instances than may write, OverQuota by the plan.
    """
    require(actor, "write", app.team, missing=f"There is no app {app.slug!r}.")
    path, subpath = check_path(path), check_subpath(subpath)
    locked = App.objects.select_for_update(of=("self",), no_key=True).select_related("team", "plan").get(pk=app.pk)
    found = Volume.objects.select_for_update().get(pk=volume.pk)
    if locked.deleting_at is not None or found.deleting_at is not None:
        raise Conflict(f"{app.slug if locked.deleting_at else found.name} is being deleted.")
    if found.team_id != locked.team_id:
        raise Invalid(f"{found.name} belongs to another team than {locked.slug}.")
    _check_count(locked)
    if Mount.objects.filter(app=locked, path=path).exists():
        raise Conflict(f"{locked.slug} has a volume at {path} already.", "Detach it first, or choose another path.")
    if not found.shared and not read_only:
        _check_alone(locked, found)
    mount = Mount.objects.create(app=locked, volume=found, path=path, read_only=read_only, subpath=subpath)
    count = Process.objects.filter(app=locked).aggregate(n=Sum("count"))["n"] or 0
    check_writers(locked, count)
    record(
        actor, "attach", "app", locked.slug, team=locked.team.slug, volume=found.name, path=path, read_only=read_only,
        subpath=subpath,
    )  # fmt: skip
    return mount, _deploy(actor, locked) if deploy else None


@transaction.atomic
def detach(actor: Actor, app: App, mount: Mount, *, deploy: bool = True) -> Deployment | None:
    """Take a volume out of an app (verb write). The volume and all that is in it stay."""
    require(actor, "write", app.team, missing=f"There is no app {app.slug!r}.")
    locked = App.objects.select_for_update(of=("self",), no_key=True).select_related("team", "plan").get(pk=app.pk)
    record(actor, "detach", "app", locked.slug, team=locked.team.slug, volume=mount.volume.name, path=mount.path)
    mount.delete()
    return _deploy(actor, locked) if deploy else None


def _check_count(app: App) -> None:
    count, most = Mount.objects.filter(app=app).count(), app.plan.volumes_max
    if count >= most:
        raise OverQuota(f"Plan {app.plan.slug} allows {most} volumes, {app.slug} has {count}.", "Choose a larger plan.")


def _check_alone(app: App, volume: Volume) -> None:
    other = Mount.objects.filter(volume=volume, read_only=False).exclude(app=app).select_related("app").first()
    if other is not None:
        raise Conflict(
            f"{other.app.slug} writes to {volume.name}, which has one writer at a time.",
            "Attach it read-only, or make a shared volume.",
        )


def _deploy(actor: Actor, app: App) -> Deployment | None:
    if app.wanted != "running" or not Release.objects.filter(app=app).exists():
        return None
    return redeploy(actor, app, kind="volumes", note="volumes changed")
