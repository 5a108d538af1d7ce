"""`/apps/{app}/volumes`: which volumes an app has."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from portal.api_auth import acting
from portal.errors import NotFound
from portal.hosting.access import get_app
from portal.hosting.models import App, Mount
from portal.releases.api_apps import loaded
from portal.releases.mounting import attach, detach
from portal.releases.schemas import DeploymentOut
from portal.volumes.access import volumes_of

router = Router(tags=["volumes"])


class MountIn(Schema):
    """A volume to mount at `path`; `subpath` is a folder in it, made when it is missing."""

    volume: str
    path: str
    read_only: bool = False
    subpath: str = ""


class MountOut(Schema):
    """A volume in an app."""

    id: int
    volume: str
    path: str
    read_only: bool
    subpath: str
    size_bytes: int
    used_bytes: int
    shared: bool


class AppVolumesOut(Schema):
    """The app's volumes, and the deployment that a change began."""

    team: str
    volumes: list[MountOut]
    deployment: DeploymentOut | None = None


def _body(app: App) -> dict[str, Any]:
    rows = Mount.objects.filter(app=app).select_related("volume")
    volumes = [
        {
            "id": row.pk, "volume": row.volume.name, "path": row.path, "read_only": row.read_only, "subpath": row.subpath,
            "size_bytes": row.volume.size_bytes, "used_bytes": row.volume.used_bytes, "shared": row.volume.shared,
        }
        for row in rows
    ]  # fmt: skip
    return {"team": app.team.slug, "volumes": volumes}


@router.get("/apps/{app}/volumes", response=AppVolumesOut, operation_id="list_app_volumes")
def app_volumes(request: HttpRequest, app: str) -> dict[str, Any]:
    """The app's volumes, by path."""
    return _body(get_app(acting(request), app))


@router.post("/apps/{app}/volumes", response={201: AppVolumesOut, 202: AppVolumesOut}, operation_id="attach_volume")
def attach_volume(request: HttpRequest, app: str, body: MountIn, deploy: bool = True) -> Status[Any]:
    """Mount one of the team's volumes. Deploys it, unless `deploy=false` or nothing runs."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    volume = volumes_of(row.team).filter(name=body.volume).first()
    if volume is None:
        raise NotFound(f"Team {row.team.slug} has no volume {body.volume[:80]!r}.", "Create it first.")
    settings = {"path": body.path, "read_only": body.read_only, "subpath": body.subpath, "deploy": deploy}
    _, begun = attach(actor, row, volume, **settings)  # type: ignore[arg-type]  # a dict of both kinds
    return Status(202 if begun else 201, _body(row) | {"deployment": loaded(begun) if begun else None})


@router.delete(
    "/apps/{app}/volumes/{mount}", response={200: AppVolumesOut, 202: AppVolumesOut}, operation_id="detach_volume"
)
def detach_volume(request: HttpRequest, app: str, mount: int, deploy: bool = True) -> Status[Any]:
    """Take a volume out of the app. The volume and all that is in it stay."""
    actor = acting(request)
    row = get_app(actor, app, "write")
    found = Mount.objects.filter(app=row, pk=mount).select_related("volume").first()
    if found is None:
        raise NotFound(f"{row.slug} has no volume with the id {mount}.")
    begun = detach(actor, row, found, deploy=deploy)
    return Status(202 if begun else 200, _body(row) | {"deployment": loaded(begun) if begun else None})
