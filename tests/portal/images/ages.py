"""Time that passes for a blob store, of either kind."""

from __future__ import annotations

import datetime as dt
import os
import time

from django.utils import timezone

from portal.images.blobs import Blobs, BlobStore
from portal.images.models import Blob, BlobObject


def make_old(store: Blobs, hours: int = 2) -> None:
    """Everything in the store was last asked for hours ago."""
    past = time.time() - hours * 3600
    if isinstance(store, BlobStore):
        for digest in store.digests():
            os.utime(store.path(digest), (past, past))
    then = timezone.now() - dt.timedelta(hours=hours)
    BlobObject.objects.update(touched_at=then)
    Blob.objects.update(created_at=then)
