"""A team's image bytes: each blob once, and what uploads under way have been promised.

A blob that several teams have counts for each of them: what a team uses must not depend on strangers.
"""

from __future__ import annotations

from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from portal.accounts.models import Team
from portal.images.faults import ImageOverQuota, shown
from portal.images.models import Blob, BlobClaim, BlobUpload, Image, Upload
from portal.images.target import Target
from portal.plans.models import TeamQuota


def blobs_of_team(team: Team) -> QuerySet[Blob]:
    """Every blob that stays because of the team, once: its images', and those it was told it need not send."""
    of_images = Image.blobs.through.objects.filter(image__team=team).values("blob_id")
    claimed = BlobClaim.objects.filter(team=team, until__gt=timezone.now()).values("blob_id")
    return Blob.objects.filter(Q(pk__in=of_images) | Q(pk__in=claimed))


def used_bytes(team: Team) -> int:
    """Bytes of the team's blobs, each counted once."""
    return int(blobs_of_team(team).aggregate(sum=Sum("size_bytes"))["sum"] or 0)


def promised_bytes(team: Team, *, but: Upload | BlobUpload | None = None) -> int:
    """Bytes that uploads and pushes under way may still bring."""
    open_uploads = Upload.objects.filter(team=team, image=None, error="", expires_at__gt=timezone.now())
    pushes = BlobUpload.objects.filter(team=team, expires_at__gt=timezone.now())
    if but is not None:  # both are named by a random UUID
        open_uploads, pushes = open_uploads.exclude(pk=but.pk), pushes.exclude(pk=but.pk)
    sums = (
        open_uploads.aggregate(sum=Sum("size_bytes"))["sum"],
        pushes.aggregate(sum=Sum("reserved_bytes"))["sum"],
    )
    return sum(int(found or 0) for found in sums)


def quota_bytes(team: Team, *, lock: bool = False) -> int:
    """What the team may hold; `lock` holds the quota's row until the transaction ends."""
    rows = TeamQuota.objects.select_for_update() if lock else TeamQuota.objects
    quota = rows.filter(team=team).first()
    return quota.image_bytes if quota is not None else TeamQuota(team=team).image_bytes


def left_bytes(app: Target) -> int:
    """How many bytes more an image of this app may bring."""
    left = quota_bytes(app.team) - used_bytes(app.team)
    return min(left, app.image_limit_bytes) if app.image_limit_bytes else left


def refusal(app: Target, wanted: int) -> ImageOverQuota:
    """Why so many bytes more do not fit: the plan's limit of one image, else the team's quota."""
    if app.image_limit_bytes and wanted > app.image_limit_bytes:
        return over_plan(app, wanted)
    return over_quota(app.team, wanted, used_bytes(app.team), quota_bytes(app.team))


def check_plan(app: Target, size_bytes: int) -> None:
    """Refuse (413) an image that is larger than the app's plan allows."""
    if app.image_limit_bytes and size_bytes > app.image_limit_bytes:
        raise over_plan(app, size_bytes)


def over_plan(app: Target, size_bytes: int) -> ImageOverQuota:
    """The refusal, with its figures."""
    return ImageOverQuota(
        f"The plan of {app.slug} allows images of {shown(app.image_limit_bytes)}; this one has {shown(size_bytes)} or more.",
        "Make it smaller, or choose a larger plan.",
        extra={"allowed_bytes": app.image_limit_bytes, "wanted_bytes": size_bytes},
    )


def over_quota(team: Team, wanted: int, used: int, allowed: int) -> ImageOverQuota:
    """The refusal, with its figures."""
    return ImageOverQuota(
        f"Team {team.slug} may hold {shown(allowed)} of images and holds {shown(used)}; this needs {shown(wanted)} more.",
        "Delete apps or old releases that are not needed, or ask the operator for a larger quota.",
        extra={"allowed_bytes": allowed, "used_bytes": used, "wanted_bytes": wanted},
    )
