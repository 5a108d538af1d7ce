"""`/volumes/{volume}/backups` and `/backups/{backup}`: begin, look, download, restore, delete."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router, Schema, Status

from portal.api_auth import acting
from portal.errors import Conflict, NotFound
from portal.volumes.access import get_backup, get_volume
from portal.volumes.api import team_meant
from portal.volumes.backups import backups_of, begin_backup, begin_restore, delete_backup
from portal.volumes.host_calls import stream
from portal.volumes.models import Restore
from portal.volumes.schemas import BackupOut, RestoreOut, backup_body, restore_body

router = Router(tags=["volumes"])


class RestoreIn(Schema):
    """Where to: a new volume `into`, else in the place of what is in the volume the backup is from."""

    into: str = ""


@router.get("/volumes/{volume}/backups", response=list[BackupOut], operation_id="list_backups")
def backups(request: HttpRequest, volume: str, team: str = "") -> list[dict[str, Any]]:
    """A volume's backups, newest first."""
    actor = acting(request)
    row = get_volume(actor, team_meant(actor, team).slug, volume)
    return [backup_body(backup) for backup in backups_of(row)]


@router.post("/volumes/{volume}/backups", response={202: BackupOut}, operation_id="create_backup")
def add_backup(request: HttpRequest, volume: str, team: str = "") -> Status[Any]:
    """Back the volume up now; see its state by its number."""
    actor = acting(request)
    row = get_volume(actor, team_meant(actor, team, "deploy").slug, volume, "deploy")
    return Status(202, backup_body(begin_backup(actor, row)))


@router.get("/backups/{backup}", response=BackupOut, operation_id="get_backup")
def backup_detail(request: HttpRequest, backup: int, team: str = "") -> dict[str, Any]:
    """One backup."""
    actor = acting(request)
    return backup_body(get_backup(actor, team_meant(actor, team).slug, backup))


@router.get("/backups/{backup}/content", operation_id="download_backup")
def backup_content(request: HttpRequest, backup: int, team: str = "") -> HttpResponseBase:
    """The backup as a .tar.zst (verb write: it holds what the app keeps)."""
    actor = acting(request)
    row = get_backup(actor, team_meant(actor, team, "write").slug, backup, "write")
    if row.state != "done":
        raise Conflict(f"Backup {row.number} is {row.state}.", "Choose one that is done.")
    return stream(row)


@router.post("/backups/{backup}/restore", response={202: RestoreOut}, operation_id="restore_backup")
def restore_backup(request: HttpRequest, backup: int, body: RestoreIn, team: str = "") -> Status[Any]:
    """Restore in place, or into a new volume. What runs with the volume is stopped first by you."""
    actor = acting(request)
    row = get_backup(actor, team_meant(actor, team, "write").slug, backup, "write")
    return Status(202, restore_body(begin_restore(actor, row, row.volume, into=body.into)))


@router.get("/restores/{restore}", response=RestoreOut, operation_id="get_restore")
def restore_detail(request: HttpRequest, restore: int, team: str = "") -> dict[str, Any]:
    """One restore."""
    actor = acting(request)
    rows = Restore.objects.select_related("volume", "backup").filter(volume__team=team_meant(actor, team))
    found = rows.filter(pk=restore).first()
    if found is None:
        raise NotFound(f"There is no restore {restore}.")
    return restore_body(found)


@router.delete("/backups/{backup}", response={204: None}, operation_id="delete_backup")
def remove_backup(request: HttpRequest, backup: int, team: str = "") -> Status[None]:
    """Delete a backup; what others have in common with it stays."""
    actor = acting(request)
    delete_backup(actor, get_backup(actor, team_meant(actor, team, "write").slug, backup, "write"))
    return Status(204, None)
