"""Images in: archives in one stream, resumable uploads, and the end of each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from channels.db import database_sync_to_async
from django.db import transaction
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.errors import PortalError
from portal.images import quota, tags, uploads
from portal.images.collect import lock_blobs
from portal.images.faults import ImageRefused, OffsetConflict
from portal.images.ingest import Ingest, Prepared, TooLarge, config_json
from portal.images.known import sizes_for
from portal.images.models import Blob, Image, Upload
from portal.images.store import blob_store
from portal.images.target import Target, repository_of

READ_BYTES = 1 << 20
_pool = ThreadPoolExecutor(4, thread_name_prefix="images")  # hashing and writing; more would not go faster
_whole = ThreadPoolExecutor(2, thread_name_prefix="uploads")  # whole files, which must not hold up the chunks of others


async def in_pool[**P, R](function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in a thread that may use the database, beside the event loop."""
    result: R = await database_sync_to_async(function, thread_sensitive=False, executor=_pool)(*args, **kwargs)
    return result


async def receive_archive(actor: Actor, app: Target, chunks: AsyncIterator[bytes], *, reference: str = "") -> Image:
    """Take an image archive (docker save or OCI layout; plain, gzip or zstd) in one pass and register it for `app`.

    Raises ImageRefused (422, a sentence) for a corrupt or hostile archive and OverQuota (413) when the team's image
    bytes would not hold it; in both cases nothing is left behind. The caller has authorised "deploy" on `app`.
    Blobs that the team has may be left out (`known.claim_known`).
    """
    ingest = Ingest(blob_store(), await in_pool(quota.left_bytes, app), sizes_for(actor, app))
    try:
        async for chunk in chunks:
            await in_pool(ingest.feed, chunk)
        return await in_pool(_register, actor, app, ingest, reference)
    except TooLarge as error:
        raise await in_pool(quota.refusal, app, error.bytes_so_far) from None
    finally:
        await in_pool(ingest.close)


def check_announced(app: Target, size_bytes: int) -> None:
    """Refuse before the first byte a body whose announced length the disk (507) or the team's quota (413) cannot hold."""
    uploads.check_room(size_bytes, times=1)
    quota.check_plan(app, size_bytes)
    allowed, used = quota.quota_bytes(app.team), quota.used_bytes(app.team)
    if used + size_bytes > allowed:
        raise quota.over_quota(app.team, size_bytes, used, allowed)


def begin_upload(actor: Actor, app: Target, size_bytes: int, file_name: str) -> Upload:
    """Reserve a resumable upload of so many bytes; raises OverQuota (413) when the team's quota cannot hold it."""
    return uploads.begin(actor, app, size_bytes, file_name)


def append_upload(upload: Upload, offset_bytes: int, data: bytes) -> int:
    """Write a chunk at exactly the current offset and return the new one; raises OffsetConflict (409)."""
    with uploads.locked(upload) as fd, uploads.Chunk(upload, fd, offset_bytes) as chunk:
        chunk.write(data)
        return chunk.finish()


async def finish_upload(actor: Actor, upload: Upload, app: Target, *, wait: bool = True) -> Image:
    """Register the image of a complete upload for the app it was begun for; repeated calls return the same image. Errors as receive_archive.

    While another request reads it this waits for that one, or raises UploadBusy without `wait`.
    """
    run = database_sync_to_async(_finish, thread_sensitive=False, executor=_whole)
    image: Image = await run(actor, upload, app, wait=wait)
    return image


def _finish(actor: Actor, upload: Upload, app: Target, *, wait: bool) -> Image:
    if (image := _finished(upload)) is not None:
        return image
    with uploads.locked(upload, wait=wait) as fd:
        if (image := _finished(upload)) is not None:
            return image
        if (have := os.fstat(fd).st_size) != upload.size_bytes:
            raise OffsetConflict(f"{have:,} of {upload.size_bytes:,} bytes are here.", "Send the rest first.")
        try:
            image = _ingest_file(actor, app, fd)
        except PortalError as error:
            uploads.end(upload, error=f"{error.message} {error.hint}".strip())
            raise
        Upload.objects.filter(pk=upload.pk).update(image=image, offset_bytes=upload.size_bytes)
        uploads.file_of(upload).unlink(missing_ok=True)
        return image


def _finished(upload: Upload) -> Image | None:
    """The image of an upload that was finished; raises its refusal again."""
    upload.refresh_from_db()
    if upload.error:
        raise ImageRefused(upload.error)
    return upload.image


def _ingest_file(actor: Actor, app: Target, fd: int) -> Image:
    with Ingest(blob_store(), quota.left_bytes(app), sizes_for(actor, app)) as ingest:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            while data := os.read(fd, READ_BYTES):
                ingest.feed(data)
            return _register(actor, app, ingest, "")
        except TooLarge as error:
            raise quota.refusal(app, error.bytes_so_far) from None


def _register(actor: Actor, app: Target, ingest: Ingest, reference: str) -> Image:
    """Choose the image, then blobs and rows together: files first, so that no row names a blob that is not there."""
    prepared = ingest.finish()
    quota.check_plan(app, prepared.size_bytes)
    with transaction.atomic():
        _check_quota(app.team, prepared)
        prepared.commit(blob_store())
        return _rows(actor, app, prepared, reference)


def _check_quota(team: Team, prepared: Prepared) -> None:
    allowed = quota.quota_bytes(team, lock=True)
    mine = set(quota.blobs_of_team(team).filter(digest__in=prepared.sizes).values_list("digest", flat=True))
    wanted = sum(size for digest, size in prepared.sizes.items() if digest not in mine)
    used = quota.used_bytes(team)
    if used + wanted > allowed:
        raise quota.over_quota(team, wanted, used, allowed)


def _rows(actor: Actor, app: Target, prepared: Prepared, reference: str) -> Image:
    keys = held_blobs(prepared.sizes)
    manifest = prepared.image.manifest
    name = reference or (prepared.image.tags[0] if prepared.image.tags else "")
    image, fresh = Image.objects.update_or_create(
        repository=repository_of(app),
        digest=manifest.digest,
        # Sent anew: it is young again.
        defaults={"reference": name[:255], "created_at": timezone.now(), "deployed_at": None},
        create_defaults={
            "team": app.team,
            "media_type": manifest.media_type,
            "size_bytes": prepared.size_bytes,
            "config": config_json(prepared),
            "reference": name[:255],
            "created_by": actor.user,
        },
    )
    if fresh:
        image.blobs.set(keys)
    tags.name_archive(image, name)
    details = {"digest": manifest.digest, "size_bytes": prepared.size_bytes, "reference": name[:255]}
    record(actor, "upload", "image", repository_of(app), team=app.team.slug, **details)
    return image


def held_blobs(sizes: Mapping[str, int]) -> list[int]:
    """Keys of the rows of all these blobs, made where they are missing and held against `collect`, which may just delete one."""
    rows = [Blob(digest=digest, size_bytes=size) for digest, size in sorted(sizes.items())]
    while True:
        Blob.objects.bulk_create(rows, ignore_conflicts=True)
        if len(keys := lock_blobs(sizes)) == len(sizes):
            return keys
