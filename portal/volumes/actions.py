"""Making, changing and deleting volumes. Giving one to an app is `releases.mounting`: it replaces what runs."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from portal import hints
from portal.accounts.access import require
from portal.accounts.actions import check_label
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.errors import Conflict, Invalid
from portal.plans.actions import lock_quota, take
from portal.plans.check import Sums, size
from portal.volumes.models import Volume

LEAST_BYTES, MOST_BYTES = 16 << 20, 60 << 30


def taken(team: Team, *, without: int | None = None) -> Sums:
    """Number and bytes of a team's volumes; one counts until its host has removed it."""
    rows = Volume.objects.filter(team=team)
    if without is not None:
        rows = rows.exclude(pk=without)
    return Sums(volumes=rows.count(), volume_bytes=rows.aggregate(n=Sum("size_bytes"))["n"] or 0)


def _check_size(size_bytes: int) -> None:
    if isinstance(size_bytes, bool) or not LEAST_BYTES <= size_bytes <= MOST_BYTES:
        raise Invalid(f"A volume of {size(size_bytes)} cannot be: sizes are {size(LEAST_BYTES)} to {size(MOST_BYTES)}.")


@transaction.atomic
def create_volume(actor: Actor, team: Team, *, name: str, size_bytes: int, shared: bool = False) -> Volume:
    """Make a volume (verb write). Conflict for a name that is taken, OverQuota with figures."""
    require(actor, "write", team, missing=f"There is no team {team.slug!r}.")
    check_label(name, "a volume")
    _check_size(size_bytes)
    lock_quota(team)
    if Volume.objects.filter(team=team, name=name).exists():
        raise Conflict(f"Team {team.slug} has a volume {name} already.", "Choose another name.")
    take(team, taken(team), Sums(volumes=1, volume_bytes=size_bytes))
    volume = Volume.objects.create(team=team, name=name, size_bytes=size_bytes, shared=shared)
    record(actor, "create", "volume", name, team=team.slug, size_bytes=size_bytes, shared=shared)
    return volume


@transaction.atomic
def resize_volume(actor: Actor, volume: Volume, size_bytes: int) -> Volume:
    """Another size, larger or smaller; what runs gets it within seconds. Below what is in it, nothing more can be written."""
    _require(actor, volume)
    _check_size(size_bytes)
    lock_quota(volume.team)
    locked = _lock(volume)
    take(volume.team, taken(volume.team, without=locked.pk), Sums(volume_bytes=size_bytes))
    Volume.objects.filter(pk=locked.pk).update(size_bytes=size_bytes)
    record(actor, "resize", "volume", locked.name, team=volume.team.slug, size_bytes=size_bytes)
    _hint(locked)
    return Volume.objects.select_related("team", "host").get(pk=locked.pk)


@transaction.atomic
def delete_volume(actor: Actor, volume: Volume) -> None:
    """Delete a volume with all that is in it; Conflict while an app has it. Its host removes it, then the row goes."""
    _require(actor, volume)
    locked = _lock(volume)
    apps = sorted(set(locked.mounts.values_list("app__slug", flat=True)))  # type: ignore[attr-defined]  # hosting.Mount, above
    if apps:
        raise Conflict(f"{locked.name} is attached to {', '.join(apps[:5])}.", "Detach it there first.")
    record(actor, "delete", "volume", locked.name, team=volume.team.slug)
    if locked.host_id is None:
        locked.delete()
        return
    Volume.objects.filter(pk=locked.pk).update(deleting_at=timezone.now())
    _hint(locked)


def _require(actor: Actor, volume: Volume) -> None:
    require(actor, "write", volume.team, missing=f"There is no volume {volume.name!r}.")


def _lock(volume: Volume) -> Volume:
    locked = Volume.objects.select_for_update(of=("self",)).select_related("team").filter(pk=volume.pk).first()
    if locked is None or locked.deleting_at is not None:
        raise Conflict(f"{volume.name} is being deleted.")
    return locked


def _hint(volume: Volume) -> None:
    if volume.host is not None:
        hints.host_changed(volume.host.name)
