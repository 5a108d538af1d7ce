"""`/volumes`: a team's volumes. Those of one app are at `/apps/{app}/volumes` (`releases.api_volumes`)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from portal.accounts.access import only_team
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.api_auth import acting
from portal.api_idempotency import idempotent
from portal.volumes.access import get_volume, team_of_volumes, volumes_of
from portal.volumes.actions import create_volume, delete_volume, resize_volume
from portal.volumes.backups import set_schedule
from portal.volumes.models import Volume
from portal.volumes.schemas import VolumeOut, volume_body

router = Router(tags=["volumes"])


class VolumeIn(Schema):
    """A volume to make. `team` may be left out by someone who is in one only; a `shared` one has many writers at once."""

    volume: str
    size_bytes: int
    team: str = ""
    shared: bool = False


class VolumePatch(Schema):
    """What to change: the size, and how often it is backed up (0 hours: never by itself)."""

    size_bytes: int | None = None
    backup_hours: int | None = None
    backups_kept: int | None = None


def team_meant(actor: Actor, slug: str, verb: Any = "read") -> Team:
    """The team named, else the only one."""
    return team_of_volumes(actor, slug or only_team(actor, verb).slug, verb)


def _one(row: Volume) -> dict[str, Any]:
    return volume_body(volumes_of(row.team).prefetch_related("mounts__app").get(pk=row.pk))


@router.get("/volumes", response=list[VolumeOut], operation_id="list_volumes")
def volumes(request: HttpRequest, team: str = "") -> list[dict[str, Any]]:
    """A team's volumes, by name."""
    rows = volumes_of(team_meant(acting(request), team)).prefetch_related("mounts__app")
    return [volume_body(row) for row in rows]


@router.post("/volumes", response={201: VolumeOut}, operation_id="create_volume")
@idempotent
def add_volume(request: HttpRequest, body: VolumeIn) -> tuple[int, Any]:
    """Make a volume."""
    actor = acting(request)
    team = team_meant(actor, body.team, "write")
    return 201, _one(create_volume(actor, team, name=body.volume, size_bytes=body.size_bytes, shared=body.shared))


@router.get("/volumes/{volume}", response=VolumeOut, operation_id="get_volume")
def volume_detail(request: HttpRequest, volume: str, team: str = "") -> dict[str, Any]:
    """One volume."""
    actor = acting(request)
    return _one(get_volume(actor, team_meant(actor, team).slug, volume))


@router.patch("/volumes/{volume}", response=VolumeOut, operation_id="resize_volume")
def patch_volume(request: HttpRequest, volume: str, body: VolumePatch, team: str = "") -> dict[str, Any]:
    """Another size, larger or smaller, which what runs gets within seconds; when it is backed up."""
    actor = acting(request)
    row = get_volume(actor, team_meant(actor, team, "write").slug, volume, "write")
    if body.size_bytes is not None:
        resize_volume(actor, row, body.size_bytes)
    if body.backup_hours is not None or body.backups_kept is not None:
        hours = row.backup_hours if body.backup_hours is None else body.backup_hours
        kept = row.backups_kept if body.backups_kept is None else body.backups_kept
        set_schedule(actor, row, hours=hours, kept=kept)
    return _one(row)


@router.delete("/volumes/{volume}", response={202: VolumeOut}, operation_id="delete_volume")
def remove_volume(request: HttpRequest, volume: str, team: str = "") -> Status[Any]:
    """Delete a volume and all that is in it; 409 while an app has it."""
    actor = acting(request)
    row = get_volume(actor, team_meant(actor, team, "write").slug, volume, "write")
    body = _one(row)
    delete_volume(actor, row)
    return Status(202, body | {"state": "deleting"})
