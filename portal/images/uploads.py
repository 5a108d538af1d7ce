"""Resumable uploads: one file each, whose length is the offset. The row says what it is for."""

from __future__ import annotations

import base64
import datetime as dt
import fcntl
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from django.db import transaction
from django.utils import timezone

from portal.accounts.access import can
from portal.accounts.actor import Actor
from portal.errors import Conflict, Invalid, NotFound
from portal.images import quota
from portal.images.faults import ChecksumMismatch, ImageRefused, NoSpace, OffsetConflict, UploadBusy, shown
from portal.images.models import Upload
from portal.images.store import uploads_dir
from portal.images.target import Target

UPLOAD_KEPT = dt.timedelta(hours=24)
MAX_BYTES = 1 << 40
MAX_UNDER_WAY = 50
RESERVE_BYTES, RESERVE_SHARE = (
    512 << 20,
    0.05,
)  # of the disk, whichever is less: database, logs and everything else go on


def file_of(upload: Upload) -> Path:
    """Where its bytes lie."""
    return uploads_dir() / upload.pk.hex


@transaction.atomic
def begin(actor: Actor, app: Target, size_bytes: int, file_name: str) -> Upload:
    """Reserve an upload; see `actions.begin_upload`."""
    if not 0 < size_bytes <= MAX_BYTES:
        raise Invalid(f"An upload has 1 to {MAX_BYTES:,} bytes, not {size_bytes:,}.", "Choose another file.")
    if actor.user is None:
        raise Invalid("An upload belongs to a person.")
    check_room(size_bytes, times=2)  # while its image is read it lies there twice: as sent and as blobs
    quota.check_plan(app, size_bytes)
    allowed = quota.quota_bytes(app.team, lock=True)
    _check_count(app)
    used = quota.used_bytes(app.team) + quota.promised_bytes(app.team)
    if used + size_bytes > allowed:
        raise quota.over_quota(app.team, size_bytes, used, allowed)
    upload = Upload.objects.create(
        team=app.team,
        user=actor.user,
        app_slug=app.slug,
        file_name=file_name[:255],
        size_bytes=size_bytes,
        expires_at=timezone.now() + UPLOAD_KEPT,
    )
    os.close(os.open(file_of(upload), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return upload


def check_room(size_bytes: int, *, times: int) -> None:
    """Refuse (507) what the portal's disk cannot take `times` times beside its reserve."""
    disk = shutil.disk_usage(uploads_dir())
    if disk.free < times * size_bytes + min(RESERVE_BYTES, disk.total * RESERVE_SHARE):
        raise NoSpace(
            f"The platform's disk has {shown(disk.free)} left; this upload needs {shown(times * size_bytes)} for a while.",
            "Ask the operator to make room.",
        )


def _check_count(app: Target) -> None:
    under_way = Upload.objects.filter(team=app.team, image=None, error="", expires_at__gt=timezone.now()).count()
    if under_way >= MAX_UNDER_WAY:
        raise Conflict(
            f"Team {app.team.slug} has {under_way} uploads under way, which is the most.",
            "Finish or cancel some; they end by themselves after 24 hours.",
        )


def load(actor: Actor, upload_id: str) -> Upload:
    """The actor's own upload, while he may deploy in its team; raises NotFound."""
    missing = NotFound("There is no such upload.", "It may have expired: an upload is kept for 24 hours. Begin again.")
    try:
        key = uuid.UUID(upload_id)
    except ValueError:
        raise missing from None
    upload = Upload.objects.select_related("team", "image").filter(pk=key, expires_at__gt=timezone.now()).first()
    if upload is None or actor.user is None or upload.user_id != actor.user.pk or not can(actor, "deploy", upload.team):
        raise missing
    if actor.app_slug not in ("", upload.app_slug):
        raise missing
    return upload


def offset_of(upload: Upload) -> int:
    """Bytes received: the file's length while it is there, as that survives any crash."""
    try:
        return file_of(upload).stat().st_size
    except FileNotFoundError:
        return upload.offset_bytes


@contextmanager
def locked(upload: Upload, *, wait: bool = False) -> Iterator[int]:
    """The upload's file, held against other requests in any process. Raises UploadBusy, NotFound when it is gone."""
    try:
        fd = os.open(file_of(upload), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound("This upload has ended.", "Begin a new one.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield fd
    except BlockingIOError:
        raise UploadBusy("Another request is writing to this upload.", "Ask for its offset and go on.") from None
    finally:
        os.close(fd)


class Chunk:
    """One PATCH: checks the offset and appends; with a checksum, what is not verified by the end is taken back."""

    def __init__(self, upload: Upload, fd: int, offset_bytes: int, checksum: str = "") -> None:
        have = os.fstat(fd).st_size
        if have != offset_bytes:
            raise OffsetConflict(
                f"The upload has {have} bytes; this chunk begins at {offset_bytes}.", "Ask for its offset and go on."
            )
        self._fd, self._begin = fd, offset_bytes
        self._limit = upload.size_bytes
        self.offset_bytes = offset_bytes
        algorithm, _, self._expected = checksum.partition(" ")
        if checksum and algorithm not in ("sha1", "sha256"):
            raise Invalid(f"The checksum algorithm {algorithm[:20]!r} is not known.", "Use sha1 or sha256.")
        self._hash = hashlib.new(algorithm) if checksum else None
        self._lock = threading.Lock()
        self._ended = self._whole = False

    def write(self, data: bytes) -> None:
        """Append; raises Invalid beyond the announced size."""
        with self._lock:
            if self._ended:
                return
            if self.offset_bytes + len(data) > self._limit:
                raise Invalid(f"The upload was announced with {shown(self._limit)}; this is more.", "Begin a new one.")
            if self._hash is not None:
                self._hash.update(data)
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, self.offset_bytes)
                self.offset_bytes += written
                view = view[written:]

    def finish(self) -> int:
        """The new offset; raises ChecksumMismatch."""
        if self._hash is not None and base64.b64encode(self._hash.digest()).decode() != self._expected:
            raise ChecksumMismatch("The chunk was damaged on its way.", "Send it again.")
        self._whole = True
        return self.offset_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """From here on no thread writes to the descriptor, which may soon be another file's."""
        with self._lock:
            self._ended = True
            if self._hash is not None and not self._whole:
                os.ftruncate(self._fd, self._begin)


def end(upload: Upload, *, error: str = "") -> None:
    """Remove the file and keep why, until the row expires."""
    file_of(upload).unlink(missing_ok=True)
    Upload.objects.filter(pk=upload.pk).update(error=error)


def raise_ended(upload: Upload) -> NoReturn:
    """An upload that is over takes no more bytes."""
    if upload.error:
        raise ImageRefused(upload.error)
    raise OffsetConflict("This upload is complete.", "Begin a new one for another image.")


def sweep() -> int:
    """Remove expired uploads and files without a row; how many went."""
    now = timezone.now()
    expired = list(Upload.objects.filter(expires_at__lte=now))
    for upload in expired:
        file_of(upload).unlink(missing_ok=True)
    Upload.objects.filter(pk__in=[upload.pk for upload in expired]).delete()
    known = {key.hex for key in Upload.objects.values_list("pk", flat=True)}
    strays = [path for path in uploads_dir().iterdir() if path.name not in known and _age_s(path) > 3600]
    for path in strays:
        path.unlink(missing_ok=True)
    return len(expired) + len(strays)


def _age_s(path: Path) -> float:
    try:
        return timezone.now().timestamp() - path.stat().st_mtime
    except FileNotFoundError:
        return 0
