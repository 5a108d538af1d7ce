"""What the API says of volumes."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ninja import Schema

from portal.volumes.models import Backup, Restore, Volume


class AttachedOut(Schema):
    """An app that has the volume."""

    app: str
    path: str
    read_only: bool
    subpath: str


class VolumeOut(Schema):
    """A volume. `state`: new (no host yet), here, deleting or troubled (`trouble` says why)."""

    volume: str
    team: str
    size_bytes: int
    used_bytes: int
    shared: bool
    host: str | None
    state: str
    trouble: str
    attached: list[AttachedOut]
    backup_hours: int
    backups_kept: int
    created_at: dt.datetime


class BackupOut(Schema):
    """A backup. `size_bytes` is the tar's, `stored_bytes` what it added to the store; `reason` why it failed."""

    backup: int
    team: str
    volume: str
    state: str
    scheduled: bool
    size_bytes: int
    stored_bytes: int
    digest: str
    reason: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class RestoreOut(Schema):
    """A restore of a backup into a volume."""

    restore: int
    backup: int
    volume: str
    state: str
    reason: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


def backup_body(row: Backup) -> dict[str, Any]:
    """A backup as BackupOut."""
    names = ("state", "scheduled", "size_bytes", "stored_bytes", "digest", "reason", "created_at", "finished_at")
    found = {name: getattr(row, name) for name in names}
    return found | {"backup": row.number, "team": row.team.slug, "volume": row.volume_name}


def restore_body(row: Restore) -> dict[str, Any]:
    """A restore as RestoreOut."""
    found = {name: getattr(row, name) for name in ("state", "reason", "created_at", "finished_at")}
    return found | {"restore": row.pk, "backup": row.backup.number, "volume": row.volume.name}


def state_of(row: Volume) -> str:
    """One word for how a volume is."""
    if row.deleting_at is not None:
        return "deleting"
    if row.trouble:
        return "troubled"
    return "here" if row.host_id else "new"


def volume_body(row: Volume) -> dict[str, Any]:
    """A volume as VolumeOut; its mounts are loaded or are fetched."""
    return {
        "volume": row.name,
        "team": row.team.slug,
        "size_bytes": row.size_bytes,
        "used_bytes": row.used_bytes,
        "shared": row.shared,
        "host": row.host.name if row.host else None,
        "state": state_of(row),
        "trouble": row.trouble,
        "attached": [
            {"app": m.app.slug, "path": m.path, "read_only": m.read_only, "subpath": m.subpath}
            for m in row.mounts.all()  # type: ignore[attr-defined]  # hosting.Mount, above
        ],
        "backup_hours": row.backup_hours,
        "backups_kept": row.backups_kept,
        "created_at": row.created_at,
    }
