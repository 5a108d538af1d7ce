"""Images and blobs that nobody needs any more leave by themselves.

An image stays while a release has it; one that nobody has deployed stays a week after it was sent. A blob stays while an image has it, while a team that
was told of it may rely on it (`known`), and an hour after it was last written or asked for.

Safe beside whoever brings the same thing at the same moment, in any process: who deploys locks the image's row, who
registers locks the blobs' rows, and each deletion here looks again under that lock. A file that is asked for is made young
under the store's lock, and only old files go; a row is deleted only where the file is gone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, ProtectedError, Q, QuerySet
from django.utils import timezone

from portal.config import config
from portal.images.models import Blob, BlobClaim, Image, Tag
from portal.images.store import blob_store

GRACE_S = 3600.0
GRACE_WHEN_TIGHT_S = 60.0  # from a blob's last use to the end of the transaction that names it
UNUSED_KEPT = dt.timedelta(days=7)
UNUSED_KEPT_WHEN_TIGHT = dt.timedelta(days=1)
TIGHT_SHARE, TIGHT_OF_BYTES = 0.25, 200 << 30  # of the file system, of which no more than this counts
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Collected:
    """What one run took away."""

    images: int
    blobs: int
    freed_bytes: int


def is_tight() -> bool:
    """Whether the portal's disk is nearly full: then collection does not wait for its hour."""
    if config().blobs_url:
        return False
    disk = shutil.disk_usage(config().portal_dir)
    return disk.free < min(disk.total, TIGHT_OF_BYTES) * TIGHT_SHARE


def collect(*, grace_s: float = GRACE_S, unused_kept: dt.timedelta = UNUSED_KEPT) -> Collected:
    """Remove what nobody needs. May run twice at once, and beside anything else."""
    BlobClaim.objects.filter(until__lte=timezone.now()).delete()
    images = drop_unused_images(unused_kept)
    old = timezone.now() - dt.timedelta(seconds=grace_s)
    orphans = dict(unneeded().filter(created_at__lte=old).values_list("digest", "size_bytes"))
    store = blob_store()
    gone = [digest for digest in orphans if store.remove(digest, unless_younger_than_s=grace_s)]
    freed = sum(orphans[digest] for digest in gone)
    _drop_rows([digest for digest in orphans if not store.has(digest)])
    known = set(Blob.objects.values_list("digest", flat=True))
    strays = [d for d in list(store.digests()) if d not in known and store.remove(d, unless_younger_than_s=grace_s)]
    store.sweep_incoming()
    return Collected(images, len(gone) + len(strays), freed)


def unneeded() -> QuerySet[Blob]:
    """Blobs that no image has and no team was told of."""
    has_image = Exists(Image.blobs.through.objects.filter(blob_id=OuterRef("pk")))
    has_claim = Exists(BlobClaim.objects.filter(blob_id=OuterRef("pk"), until__gt=timezone.now()))
    return Blob.objects.filter(~has_image, ~has_claim)


def _drop_rows(digests: list[str]) -> None:
    """Rows whose file is gone, unless it came back or an image took the row meanwhile."""
    for start in range(0, len(digests), _AT_A_TIME):
        with transaction.atomic():
            locked = lock_blobs(digests[start : start + _AT_A_TIME])
            alone = set(unneeded().filter(pk__in=locked).values_list("digest", flat=True))
            store = blob_store()
            Blob.objects.filter(digest__in=[digest for digest in alone if not store.has(digest)]).delete()


def lock_blobs(digests: Iterable[str]) -> list[int]:
    """Hold the rows of these blobs until the transaction ends; keys of those that are there. Always in the same order."""
    rows = Blob.objects.select_for_update().filter(digest__in=list(digests)).order_by("digest")
    return list(rows.values_list("pk", flat=True))


def unused_images() -> QuerySet[Image]:
    """Images that no release has: what was never deployed, and what is left of deleted apps and old releases.

    What was pushed under a tag is wanted, and with it what an index lists and what is about another manifest that is here.
    """
    tagged = Exists(Tag.objects.filter(image=OuterRef("pk"), pushed=True))
    listed = Exists(Image.parts.through.objects.filter(to_image_id=OuterRef("pk")))
    about = Exists(Image.objects.filter(repository=OuterRef("repository"), digest=OuterRef("subject")))
    return Image.objects.filter(~tagged, ~listed, ~about, releases=None)


def drop_unused_images(kept: dt.timedelta = UNUSED_KEPT) -> int:
    """Forget the images whose last release went, and those that nobody deployed in time; how many went."""
    over = Q(deployed_at__isnull=False) | Q(created_at__lt=timezone.now() - kept)
    keys = list(unused_images().filter(over).values_list("pk", flat=True))
    return sum(_drop_image(key, over) for key in keys)


def _drop_image(key: int, over: Q) -> bool:
    """Forget one image unless a release has it, also one that is being made in this moment; whether it went."""
    with contextlib.suppress(ProtectedError, IntegrityError), transaction.atomic():
        image = Image.objects.select_for_update(of=("self",)).filter(over, pk=key).first()
        if image is not None and unused_images().filter(pk=key).exists():  # else it was tagged meanwhile
            image.delete()  # asks for releases after the lock was taken
            return True
    return False
