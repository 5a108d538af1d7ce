"""What hosts say of their volumes."""

from __future__ import annotations

from collections.abc import Iterable

from portal.fleet.models import Host
from portal.volumes.models import Backup, Restore, Volume
from worker.protocol import DesiredVolume, ObservedVolume, VolumeTask


def desired_on(host: Host) -> tuple[DesiredVolume, ...]:
    """Every volume that should be on a host, or should go from it."""
    rows = Volume.objects.filter(host=host).select_related("team").order_by("pk")
    return tuple(
        DesiredVolume(
            name=row.engine_name, team=row.team.slug, size_bytes=row.size_bytes, gone=row.deleting_at is not None
        )
        for row in rows
    )


def tasks_on(host: Host) -> tuple[VolumeTask, ...]:
    """What the host is to back up or restore, the oldest first."""
    restores = Restore.objects.filter(volume__host=host, state="waiting").select_related("volume__team", "backup")
    backups = Backup.objects.filter(volume__host=host, state="waiting").select_related("volume__team")
    found = [
        VolumeTask(kind="restore", id=row.pk, volume=row.volume.engine_name, digest=row.backup.digest)
        for row in restores.order_by("pk")
    ]
    found += [
        VolumeTask(kind="backup", id=row.pk, volume=row.volume.engine_name)
        for row in backups.order_by("pk")
        if row.volume
    ]
    return tuple(found)


def take_in(host: Host, found: Iterable[ObservedVolume]) -> None:
    """Write down what each uses; a row whose volume was to go and has gone is deleted."""
    seen = {volume.name: volume for volume in found}
    for row in Volume.objects.filter(host=host).select_related("team"):
        volume = seen.get(row.engine_name)
        if volume is None:
            continue
        if volume.gone:
            if row.deleting_at is not None:
                row.delete()
        elif (row.used_bytes, row.trouble) != (volume.used_bytes, volume.trouble):
            Volume.objects.filter(pk=row.pk).update(used_bytes=volume.used_bytes, trouble=volume.trouble[:1000])
