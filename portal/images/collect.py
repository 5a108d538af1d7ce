"""Blobs that no image needs any more leave the store, an hour after they were last asked for."""

from __future__ import annotations

import contextlib
import datetime as dt

from django.db.models import Exists, OuterRef, ProtectedError
from django.utils import timezone

from portal.images.models import Blob, Image
from portal.images.store import blob_store

GRACE_S = 3600.0
UNUSED_KEPT = dt.timedelta(days=7)


def collect(*, grace_s: float = GRACE_S) -> int:
    """Remove blobs without an image; how many files went.

    Safe beside an upload that relies on one: it makes the file young, and only old files go; should the row go just
    before the upload registers it, the upload writes the row again.
    """
    _drop_unused_images()
    store = blob_store()
    old = timezone.now() - dt.timedelta(seconds=grace_s)
    has_image = Exists(Image.blobs.through.objects.filter(blob_id=OuterRef("pk")))
    orphans = list(Blob.objects.filter(~has_image, created_at__lte=old).values_list("digest", flat=True))
    known = set(Blob.objects.values_list("digest", flat=True))
    gone = [digest for digest in orphans if store.remove(digest, unless_younger_than_s=grace_s)]
    gone += [d for d in store.digests() if d not in known and store.remove(d, unless_younger_than_s=grace_s)]
    missing = [digest for digest in orphans if not store.has(digest)]
    Blob.objects.filter(~has_image, digest__in=missing).delete()
    store.sweep_incoming()
    return len(gone)


def _drop_unused_images() -> None:
    """Images that were sent but belong to no release: what was never deployed, and what is left of deleted apps."""
    unused = Image.objects.filter(releases=None, created_at__lt=timezone.now() - UNUSED_KEPT)
    for image in unused:
        with contextlib.suppress(ProtectedError):  # deployed in this moment
            image.delete()
