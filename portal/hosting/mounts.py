"""Which volumes an app has, and what that asks of its instances."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from portal.errors import Conflict, Invalid
from portal.hosting.models import App, Mount
from worker.protocol import VolumeMount

_TAKEN = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


def mounts_of(app_ids: Iterable[int]) -> dict[int, tuple[VolumeMount, ...]]:
    """What workers are told, by app, in one query."""
    found: dict[int, tuple[VolumeMount, ...]] = {}
    rows = Mount.objects.filter(app__in=list(app_ids)).select_related("volume__team").order_by("app", "path")
    for row in rows:
        mount = VolumeMount(
            name=row.volume.engine_name, path=row.path, read_only=row.read_only, subpath=row.subpath,
            exclusive=not row.volume.shared and not row.read_only,
        )  # fmt: skip
        found[row.app_id] = (*found.get(row.app_id, ()), mount)
    return found


def exclusive_volumes(app: App) -> tuple[str, ...]:
    """Names of the volumes that only one instance may have, which this app writes to."""
    rows = Mount.objects.filter(app=app, read_only=False, volume__shared=False)
    return tuple(sorted(set(rows.values_list("volume__name", flat=True))))


def check_writers(app: App, instances: int) -> None:
    """Raise Conflict when so many instances would write to a volume with one writer."""
    names = exclusive_volumes(app)
    if instances > 1 and names:
        raise Conflict(
            f"{app.slug} writes to {', '.join(names)}, which has one writer at a time: {instances} instances cannot.",
            "Keep one instance, mount it read-only, or make a shared volume.",
        )


def check_path(path: str) -> str:
    """Where a volume may be mounted, in its plain form; raises Invalid."""
    plain = "/" + posixpath.normpath("/" + path.strip()).lstrip("/")
    if not path.strip().startswith("/") or plain == "/" or len(plain) > 255 or "\0" in path or ":" in path:
        raise Invalid(f"{path[:100]!r} is no place for a volume.", "Give an absolute path such as /data.")
    if any(plain == taken or plain.startswith(f"{taken}/") for taken in _TAKEN):
        raise Invalid(f"{plain} is the platform's.", "Choose another path, such as /data.")
    return plain


def check_subpath(subpath: str) -> str:
    """A folder in a volume, in its plain form, "" for the whole; raises Invalid."""
    plain = posixpath.normpath(subpath.strip()) if subpath.strip() else ""
    if plain == ".":
        return ""
    if plain.startswith(("/", "..")) or len(plain) > 255 or "\0" in plain:
        raise Invalid(f"{subpath[:100]!r} is no folder below the volume.", "Give a relative path such as uploads.")
    return plain
