"""Images in: archives in one stream, resumable uploads, and the end of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

from portal.accounts.actor import Actor
from portal.images.models import Image, Upload
from portal.images.target import Target


async def receive_archive(actor: Actor, app: Target, chunks: AsyncIterator[bytes], *, reference: str = "") -> Image:
    """Take an image archive (docker save or OCI layout; plain, gzip or zstd) in one pass and register it for `app`.

    Raises ImageRefused (422, a sentence) for a corrupt or hostile archive and OverQuota (413) when the team's image
    bytes would not hold it; in both cases nothing is left behind. The caller has authorised "deploy" on `app`.
    """
    raise NotImplementedError


def begin_upload(actor: Actor, app: Target, size_bytes: int, file_name: str) -> Upload:
    """Reserve a resumable upload of so many bytes; raises OverQuota (413) when the team's quota cannot hold it."""
    raise NotImplementedError


def append_upload(upload: Upload, offset_bytes: int, data: bytes) -> int:
    """Write a chunk at exactly the current offset and return the new one; raises OffsetConflict (409)."""
    raise NotImplementedError


async def finish_upload(actor: Actor, upload: Upload) -> Image:
    """Register the image of a complete upload; repeated calls return the same image. Errors as receive_archive."""
    raise NotImplementedError
