"""Backups and restores: asked for here, done by the volume's host, whose word on them comes back here."""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from portal import hints
from portal.accounts.access import require
from portal.accounts.actor import SYSTEM, Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.errors import Conflict, Invalid, NotFound, OverQuota, PortalError
from portal.plans.actions import lock_quota, quota_of
from portal.plans.check import size
from portal.volumes.actions import create_volume
from portal.volumes.chunks import ChunkStore
from portal.volumes.models import Backup, Restore, Task, Volume

LATE = dt.timedelta(hours=24)


def backups_of(volume: Volume) -> list[Backup]:
    """Newest first."""
    return list(Backup.objects.filter(volume=volume))


@transaction.atomic
def begin_backup(actor: Actor, volume: Volume, *, scheduled: bool = False) -> Backup:
    """Have the host back the volume up (verb deploy). Conflict when one waits already or there is nothing yet, OverQuota."""
    require(actor, "deploy", volume.team, missing=f"There is no volume {volume.name!r}.")
    lock_quota(volume.team)
    locked = Volume.objects.select_for_update(of=("self",)).select_related("team", "host").get(pk=volume.pk)
    if locked.host is None or locked.deleting_at is not None:
        raise Conflict(f"{locked.name} is not on a host: there is nothing to back up.", "Attach it to an app first.")
    if locked.backups.filter(state=Task.State.WAITING).exists():
        raise Conflict(f"A backup of {locked.name} is under way.", "Wait for its end.")
    allowed, used = quota_of(locked.team).backup_bytes, ChunkStore(locked.team.pk).stored_bytes()
    if used >= allowed:
        raise OverQuota(
            f"Backups of team {locked.team.slug} take {size(used)} of {size(allowed)}.",
            "Delete some, keep fewer, or ask an operator for a larger quota.",
        )
    last = Backup.objects.filter(team=locked.team).aggregate(last=Max("number"))["last"]
    backup = Backup.objects.create(
        team=locked.team, volume=locked, volume_name=locked.name, number=(last or 0) + 1, scheduled=scheduled
    )
    record(actor, "back_up", "volume", locked.name, team=locked.team.slug, backup=backup.number)
    hints.host_changed(locked.host.name)
    return backup


@transaction.atomic
def begin_restore(actor: Actor, backup: Backup, volume: Volume | None = None, *, into: str = "") -> Restore:
    """Put a backup in the place of all that is in a volume (verb write), or `into` a new one beside it.

    Conflict while an app with it is to run: until the host has the whole backup the old content stays, and so does a failure.
    """
    require(actor, "write", backup.team, missing=f"There is no backup {backup.number}.")
    if backup.state != Task.State.DONE:
        raise Conflict(f"Backup {backup.number} is {backup.state}.", "Choose one that is done.")
    if into:
        volume = _new_beside(actor, backup, into)
    if volume is None:
        raise Conflict(f"The volume {backup.volume_name} is gone.", "Restore into a new one.")
    if volume.host is None or volume.deleting_at is not None:
        raise Conflict(f"{volume.name} is not on a host.", "Restore into a new volume.")
    running = volume.mounts.filter(app__wanted="running", app__deleting_at=None)  # type: ignore[attr-defined]  # hosting.Mount, above
    apps = sorted(set(running.values_list("app__slug", flat=True)))
    if apps:
        raise Conflict(
            f"{volume.name} is in use by {', '.join(apps[:5])}.", "Stop what uses it, or restore into a new one."
        )
    if volume.restores.filter(state=Task.State.WAITING).exists():
        raise Conflict(f"A restore of {volume.name} is under way.", "Wait for its end.")
    restore = Restore.objects.create(volume=volume, backup=backup)
    record(actor, "restore", "volume", volume.name, team=volume.team.slug, backup=backup.number)
    hints.host_changed(volume.host.name)
    return restore


def _new_beside(actor: Actor, backup: Backup, name: str) -> Volume:
    """A volume as large as the one it is from, on the same host."""
    source = backup.volume
    if source is None or source.host is None:
        raise Conflict(
            f"The volume {backup.volume_name} is gone.", "Make a volume, attach it, and restore in its place."
        )
    made = create_volume(actor, backup.team, name=name, size_bytes=source.size_bytes, shared=source.shared)
    Volume.objects.filter(pk=made.pk).update(host=source.host)
    made.host = source.host
    return made


@transaction.atomic
def delete_backup(actor: Actor, backup: Backup) -> None:
    """Remove a backup (verb write); what other backups have in common with it stays."""
    require(actor, "write", backup.team, missing=f"There is no backup {backup.number}.")
    if backup.restores.filter(state=Task.State.WAITING).exists():
        raise Conflict(f"Backup {backup.number} is being restored.", "Wait for its end.")
    record(actor, "delete_backup", "volume", backup.volume_name, team=backup.team.slug, backup=backup.number)
    _remove(backup)


def _remove(backup: Backup) -> None:
    backup.restores.all().delete()
    number, team = backup.pk, backup.team_id
    backup.delete()
    transaction.on_commit(lambda: ChunkStore(team).forget(number))


@transaction.atomic
def set_schedule(actor: Actor, volume: Volume, *, hours: int, kept: int) -> None:
    """Back up by itself every so many hours (0: never) and keep so many of those (verb write)."""
    require(actor, "write", volume.team, missing=f"There is no volume {volume.name!r}.")
    if not 0 <= hours <= 24 * 31 or not 1 <= kept <= 365:
        raise Invalid(f"{hours} hours and {kept} backups cannot be.", "Give 0 to 744 hours and 1 to 365 backups.")
    Volume.objects.filter(pk=volume.pk).update(backup_hours=hours, backups_kept=kept)
    record(actor, "schedule", "volume", volume.name, team=volume.team.slug, hours=hours, kept=kept)


# What the host says


def backup_under_way(host_id: int, pk: int) -> Backup:
    """What a host works on; NotFound for another host's, or when it is over."""
    found = (
        Backup.objects.select_related("volume").filter(pk=pk, volume__host=host_id, state=Task.State.WAITING).first()
    )
    if found is None:
        raise NotFound(f"There is no backup {pk} to do.")
    return found


def restore_under_way(host_id: int, pk: int) -> Restore:
    """What a host works on; NotFound for another host's, or when it is over."""
    found = (
        Restore.objects.select_related("backup").filter(pk=pk, volume__host=host_id, state=Task.State.WAITING).first()
    )
    if found is None:
        raise NotFound(f"There is no restore {pk} to do.")
    return found


def add_chunk(backup: Backup, digest: bytes, packed: bytes) -> None:
    """One chunk of a backup under way."""
    added = ChunkStore(backup.team_id).put(digest, packed)
    if added:
        Backup.objects.filter(pk=backup.pk).update(stored_bytes=F("stored_bytes") + added)


def finish_backup(backup: Backup, digests: bytes, *, size_bytes: int, digest: str) -> None:
    """All chunks are here: keep the list, and with it the backup."""
    ChunkStore(backup.team_id).keep_list(backup.pk, digests)
    Backup.objects.filter(pk=backup.pk).update(
        state=Task.State.DONE, size_bytes=size_bytes, digest=digest, finished_at=timezone.now()
    )
    if backup.volume is not None:
        prune(backup.volume)


def end(task: Backup | Restore, reason: str) -> None:
    """It failed for that reason, or a restore is done."""
    state = Task.State.FAILED if reason else Task.State.DONE
    type(task)._default_manager.filter(pk=task.pk).update(state=state, reason=reason[:1000], finished_at=timezone.now())


# What beat does


def prune(volume: Volume) -> None:
    """Remove scheduled backups beyond what is kept; those that somebody asked for stay."""
    rows = Backup.objects.filter(volume=volume, scheduled=True, state=Task.State.DONE)
    for backup in rows[volume.backups_kept :]:
        if not backup.restores.filter(state=Task.State.WAITING).exists():
            _remove(backup)


def begin_due() -> int:
    """Begin the backups that are due; what hosts were silent about for a day has failed."""
    now, begun = timezone.now(), 0
    for model in (Backup, Restore):
        late = model._default_manager.filter(state=Task.State.WAITING, created_at__lt=now - LATE)
        late.update(state=Task.State.FAILED, reason="Its host said nothing of it for a day.", finished_at=now)
    for volume in Volume.objects.filter(backup_hours__gt=0, deleting_at=None, host__isnull=False):
        last = volume.backups.aggregate(last=Max("created_at"))["last"]
        if last is None or now - last >= dt.timedelta(hours=volume.backup_hours):
            try:
                begin_backup(SYSTEM, volume, scheduled=True)
            except PortalError:
                continue  # one is under way, or the quota is used up: the page shows no new one
            begun += 1
    return begun


def collect() -> int:
    """Remove chunks that no backup needs; bytes that are free again."""
    return sum(
        ChunkStore(pk).collect()
        for pk in Team.objects.filter(backups__isnull=False).distinct().values_list("pk", flat=True)
    )
