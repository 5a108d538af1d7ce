"""What hosts say of backups and restores: `/internal/v1/hosts/{host}/backups|restores/…` (portal.internal guards them)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from portal.errors import Invalid
from portal.fleet.models import Host
from portal.volumes import backups
from portal.volumes.chunks import ChunkStore
from portal.volumes.models import Backup

_GROUP = 16


def missing(request: HttpRequest, host: Host, number: int) -> HttpResponse:
    """POST digests, 32 bytes each; those that are not here come back."""
    store, data = ChunkStore(backups.backup_under_way(host.pk, number).team_id), request.body
    digests = [data[n : n + 32] for n in range(0, len(data), 32)]
    return HttpResponse(b"".join(store.missing(digests)), content_type="application/octet-stream")


def chunk(request: HttpRequest, host: Host, number: int, digest: str) -> HttpResponse:
    """POST one chunk, compressed."""
    try:
        wanted = bytes.fromhex(digest)
    except ValueError:
        raise Invalid(f"{digest[:80]!r} is no digest.") from None
    backups.add_chunk(backups.backup_under_way(host.pk, number), wanted, request.body)
    return HttpResponse(status=204)


def end_backup(request: HttpRequest, host: Host, number: int) -> HttpResponse:
    """POST the list of all chunks with `size` and `digest` in the query, or `reason` when it failed."""
    backup, given = backups.backup_under_way(host.pk, number), request.GET
    if given.get("reason"):
        backups.end(backup, given["reason"])
        return HttpResponse(status=204)
    if not given.get("size", "").isdecimal() or not given.get("digest", "").startswith("sha256:"):
        raise Invalid("Give size and digest.")
    backups.finish_backup(backup, request.body, size_bytes=int(given["size"]), digest=given["digest"][:71])
    return HttpResponse(status=204)


def content(request: HttpRequest, host: Host, number: int) -> StreamingHttpResponse:
    """GET the backup that is to be restored, as it is stored: zstd frames."""
    return stream(backups.restore_under_way(host.pk, number).backup)


def end_restore(request: HttpRequest, host: Host, number: int) -> HttpResponse:
    """POST {"reason": ""}; an empty one says that it is done."""
    restore = backups.restore_under_way(host.pk, number)
    try:
        reason = str(json.loads(request.body)["reason"])
    except (ValueError, KeyError, TypeError):
        raise Invalid("Give a reason, or an empty one.") from None
    backups.end(restore, reason)
    return JsonResponse({})


def stream(backup: Backup) -> StreamingHttpResponse:
    """A backup as a .tar.zst. A damaged part ends it early, which the reader sees: its last frame or the digest is missing."""
    parts = ChunkStore(backup.team_id).packed(backup.pk)

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(_some, parts):
            yield piece

    name = f"{backup.volume_name}-{backup.number}.tar.zst"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(pieces(), content_type="application/zstd", headers=headers)


def _some(parts: Iterator[bytes]) -> bytes:
    return b"".join(itertools.islice(parts, _GROUP))
