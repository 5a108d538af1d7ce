"""Which blobs a team has already, so that they are not sent again: asked before an upload, relied on at its end.

Only the team's own blobs are ever said to be here. A blob of strangers is answered like one that nobody has: else the
question would tell who runs what, and its digest would be enough to take the layer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping

from django.db.models import Q, QuerySet
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.errors import Invalid
from portal.images import quota
from portal.images.blobs import DIGEST
from portal.images.models import Blob, BlobClaim, Image
from portal.images.store import blob_store
from portal.images.target import Target, repository_of

ASKED_AT_MOST = 1000
CLAIMED = dt.timedelta(hours=24)  # as long as an upload may take

type Sizes = Callable[[str], int | None]


def blobs_of(actor: Actor, app: Target) -> QuerySet[Blob]:
    """What the actor may rely on for an image of `app`: his team's blobs; with a token of one app that app's."""
    if not actor.app_slug:
        return quota.blobs_of_team(app.team)
    name = repository_of(app)
    of_images = Image.blobs.through.objects.filter(image__repository=name, image__team=app.team).values("blob_id")
    claimed = BlobClaim.objects.filter(repository=name, team=app.team, until__gt=timezone.now()).values("blob_id")
    return Blob.objects.filter(Q(pk__in=of_images) | Q(pk__in=claimed))


def claim_known(actor: Actor, app: Target, digests: Iterable[str]) -> dict[str, int]:
    """Sizes by digest of those that are here for the team; they stay for a day, whatever happens to the images that have them.

    The caller has authorised "deploy" on `app`. Raises Invalid for more than a thousand, or what is no digest.
    """
    asked = set(digests)
    if len(asked) > ASKED_AT_MOST:
        raise Invalid(
            f"{len(asked):,} digests were asked for; {ASKED_AT_MOST:,} is the most.", "Ask for the large ones."
        )
    if strange := next((text for text in asked if not DIGEST.match(text)), None):
        raise Invalid(f"{strange[:80]!r} is no sha256 digest.")
    store, found = blob_store(), blobs_of(actor, app).filter(digest__in=asked)
    here = [blob for blob in found.order_by("digest") if store.touch(blob.digest)]
    _claim(app, here)
    return {blob.digest: blob.size_bytes for blob in here}


def _claim(app: Target, blobs: Iterable[Blob]) -> None:
    """Keep blobs for a day for an app's team; ones that were claimed before from now on."""
    until, name = timezone.now() + CLAIMED, repository_of(app)
    rows = [BlobClaim(team=app.team, repository=name, blob=blob, until=until) for blob in blobs]
    BlobClaim.objects.bulk_create(
        rows, update_conflicts=True, update_fields=["until"], unique_fields=["repository", "blob"]
    )


def sizes_for(actor: Actor, app: Target) -> Sizes:
    """Answers the size of a blob that an archive leaves out, None when the team does not have it."""
    kept: dict[str, int | None] = {}

    def size(digest: str) -> int | None:
        if digest not in kept:
            rows: Mapping[str, int] = dict(
                blobs_of(actor, app).filter(digest=digest).values_list("digest", "size_bytes")
            )
            kept[digest] = rows.get(digest)
        return kept[digest]

    return size
