"""Blobs that no image needs any more leave the store, an hour after they were last asked for."""

from __future__ import annotations

import datetime as dt

from django.db.models import Exists, OuterRef
from django.utils import timezone

from portal.images.models import Blob, Image
from portal.images.store import blob_store

GRACE_S = 3600.0


def collect(*, grace_s: float = GRACE_S) -> int:
    """Remove blobs without an image; how many files went.

    Safe beside an upload that relies on one: it makes the file young, and only old files go; should the row go just
    before the upload registers it, the upload writes the row again.
    """
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
