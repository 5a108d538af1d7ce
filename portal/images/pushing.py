"""Blobs that are being pushed: begun, reserved in the team's quota as they grow, finished, mounted, swept.

The bytes of one lie in a file of its own, whose length is the offset: what a cut or a crash leaves can be continued.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.errors import PortalError
from portal.images import quota
from portal.images.actions import held_blobs
from portal.images.faults import NoSpace, shown
from portal.images.ingest import refusals
from portal.images.known import CLAIMED
from portal.images.models import Blob, BlobClaim, BlobUpload
from portal.images.registry import RegistryError, blobs_in
from portal.images.store import blob_store, pushes_dir
from portal.images.uploads import MAX_BYTES, RESERVE_BYTES

KEPT = dt.timedelta(hours=24)  # after the last byte
STEP_BYTES = 64 << 20  # a push that does not say how long it is reserves so much at a time
MAX_UNDER_WAY = 200
READ_BYTES = 1 << 20


def file_of(upload: BlobUpload) -> Path:
    """Where its bytes lie."""
    return pushes_dir() / upload.pk.hex


@transaction.atomic
def begin(actor: Actor, team: Team, repository: str, size_bytes: int = 0) -> BlobUpload:
    """An empty upload with `size_bytes` reserved; PortalError when quota or disk would not hold them or a first byte."""
    allowed, used = quota.quota_bytes(team, lock=True), quota.used_bytes(team) + quota.promised_bytes(team)
    if used + max(size_bytes, 1) > allowed:
        raise quota.over_quota(team, max(size_bytes, 1), used, allowed)
    _check_room(size_bytes)
    under_way = BlobUpload.objects.filter(team=team, expires_at__gt=timezone.now()).count()
    if under_way >= MAX_UNDER_WAY:
        text = f"Team {team.slug} has {under_way} blob uploads under way, which is the most: cancel some or wait a day."
        raise RegistryError(429, "TOOMANYREQUESTS", text)
    assert actor.user is not None  # whoever pushes has signed in
    upload = BlobUpload.objects.create(
        team=team, user=actor.user, repository=repository, reserved_bytes=size_bytes, expires_at=timezone.now() + KEPT
    )
    os.close(os.open(file_of(upload), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return upload


def _check_room(size_bytes: int) -> None:
    free = shutil.disk_usage(pushes_dir()).free
    if free < size_bytes + RESERVE_BYTES:
        text = f"The platform's disk has {shown(free)} left, of which {shown(RESERVE_BYTES)} are kept for itself"
        raise NoSpace(f"{text}; this needs {shown(size_bytes)}.", "Ask the operator to make room.")


def load(actor: Actor, repository: str, upload_id: str) -> BlobUpload:
    """The actor's own upload to this repository; RegistryError BLOB_UPLOAD_UNKNOWN."""
    missing = RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "There is no such upload: it ended or expired. Begin again.")
    try:
        key = uuid.UUID(upload_id)
    except ValueError:
        raise missing from None
    rows = BlobUpload.objects.select_related("team").filter(repository=repository, expires_at__gt=timezone.now())
    upload = rows.filter(pk=key, user=actor.user).first()
    if upload is None or not file_of(upload).exists():
        raise missing
    return upload


@contextmanager
def locked(upload: BlobUpload) -> Iterator[int]:
    """The upload's file, held against other requests in any process; RegistryError when it is in use or gone."""
    try:
        fd = os.open(file_of(upload), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "This upload has ended. Begin a new one.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "This upload has ended. Begin a new one.")
        yield fd
    except BlockingIOError:
        text = "Another request is writing to this upload: ask how far it is and go on."
        raise RegistryError(409, "BLOB_UPLOAD_INVALID", text) from None
    finally:
        os.close(fd)


@transaction.atomic
def reserve(upload: BlobUpload, size_bytes: int) -> None:
    """Let the blob have so many bytes in all; PortalError (413, 507) with the figures when the team or the disk has not."""
    if size_bytes <= upload.reserved_bytes:
        return
    if size_bytes > MAX_BYTES:
        raise RegistryError(413, "SIZE_INVALID", f"A blob has at most {shown(MAX_BYTES)}.")
    team = upload.team
    allowed = quota.quota_bytes(team, lock=True)
    used = quota.used_bytes(team) + quota.promised_bytes(team, but=upload)
    if used + size_bytes > allowed:
        raise quota.over_quota(team, size_bytes, used, allowed)
    _check_room(size_bytes - upload.reserved_bytes)
    upload.reserved_bytes = size_bytes
    BlobUpload.objects.filter(pk=upload.pk).update(reserved_bytes=size_bytes)


def reserve_more(upload: BlobUpload, size_bytes: int) -> None:
    """For a push that does not say how long it is: so many bytes and some more, or just so many when that is all there is."""
    try:
        reserve(upload, size_bytes + STEP_BYTES)
    except PortalError:
        reserve(upload, size_bytes)


def too_long(size_bytes: int) -> RegistryError:
    """A body that goes on after its announced end."""
    return RegistryError(400, "SIZE_INVALID", f"The chunk was announced with {size_bytes} bytes; this is more.")


def rest(upload: BlobUpload, size_bytes: int, digest: str) -> None:
    """A request has ended: so many bytes are here; `digest` is theirs where it is known. The upload is kept for another day."""
    known = {"hashed_bytes": size_bytes, "digest": digest} if digest else {}
    BlobUpload.objects.filter(pk=upload.pk).update(reserved_bytes=size_bytes, expires_at=timezone.now() + KEPT, **known)


def digest_of(upload: BlobUpload, fd: int) -> str:
    """The digest of the whole file: known where every byte passed through one request after the other, else read once."""
    if upload.digest and upload.hashed_bytes == os.fstat(fd).st_size:
        return upload.digest
    hashed, offset = hashlib.sha256(), 0
    while data := os.pread(fd, READ_BYTES, offset):
        hashed.update(data)
        offset += len(data)
    return f"sha256:{hashed.hexdigest()}"


def finish(upload: BlobUpload, digest: str) -> None:
    """The file has the digest it should have: into the store, and into the repository for a day, or until a manifest has it."""
    with refusals(), blob_store().writer(hashed_elsewhere=True, whole=file_of(upload)) as writer:
        writer.named(digest)
        writer.seal()
        with transaction.atomic():
            _check_quota(upload.team, digest, writer.size_bytes, upload)
            stored = writer.commit()
            _claim(upload.team, upload.repository, stored.digest, stored.size_bytes)
            BlobUpload.objects.filter(pk=upload.pk).delete()


def _check_quota(team: Team, digest: str, size_bytes: int, upload: BlobUpload | None = None) -> None:
    allowed = quota.quota_bytes(team, lock=True)
    if quota.blobs_of_team(team).filter(digest=digest).exists():
        return
    used = quota.used_bytes(team) + quota.promised_bytes(team, but=upload)
    if used + size_bytes > allowed:
        raise quota.over_quota(team, size_bytes, used, allowed)


def _claim(team: Team, repository: str, digest: str, size_bytes: int) -> None:
    (key,) = held_blobs({digest: size_bytes})
    until = timezone.now() + CLAIMED
    BlobClaim.objects.update_or_create(
        repository=repository, blob_id=key, defaults={"until": until}, create_defaults={"team": team, "until": until}
    )


@transaction.atomic
def mount(team: Team, repository: str, source: str, digest: str) -> bool:
    """Give the repository a blob of another one, which the caller may pull from; whether it was there."""
    blob: Blob | None = blobs_in(source).filter(digest=digest).first()
    if blob is None or not blob_store().touch(digest):
        return False
    _check_quota(team, digest, blob.size_bytes)
    _claim(team, repository, digest, blob.size_bytes)
    return True


def cancel(upload: BlobUpload) -> None:
    """Forget it and its bytes."""
    with locked(upload):
        drop(upload)


def drop(upload: BlobUpload) -> None:
    """The same for who holds it."""
    file_of(upload).unlink(missing_ok=True)
    BlobUpload.objects.filter(pk=upload.pk).delete()


def drop_blob(repository: str, digest: str) -> None:
    """Take a blob out of the repository; RegistryError when a manifest needs it or it is not there."""
    if not blobs_in(repository).filter(digest=digest).exists():
        raise RegistryError(404, "BLOB_UNKNOWN", f"{repository} has no blob {digest}.")
    if Blob.objects.filter(digest=digest, images__repository=repository).exists():
        text = f"A manifest of {repository} needs {digest}: delete that first, then its blobs go by themselves."
        raise RegistryError(405, "UNSUPPORTED", text)
    BlobClaim.objects.filter(repository=repository, blob__digest=digest).delete()


def sweep() -> int:
    """Remove expired pushes and files without a row; how many went."""
    expired = list(BlobUpload.objects.filter(expires_at__lte=timezone.now()))
    for upload in expired:
        drop(upload)
    known = {key.hex for key in BlobUpload.objects.values_list("pk", flat=True)}
    strays = [path for path in pushes_dir().iterdir() if path.name not in known and _is_old(path)]
    for path in strays:
        path.unlink(missing_ok=True)
    return len(expired) + len(strays)


def _is_old(path: Path) -> bool:
    try:
        return timezone.now().timestamp() - path.stat().st_mtime > 3600
    except FileNotFoundError:
        return False
