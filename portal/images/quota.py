"""A team's image bytes: each blob once, and what uploads under way have been promised."""

from __future__ import annotations

from django.db.models import Sum
from django.utils import timezone

from portal.accounts.models import Team
from portal.images.faults import ImageOverQuota, shown
from portal.images.models import Blob, Upload
from portal.plans.models import TeamQuota


def used_bytes(team: Team) -> int:
    """Bytes of the team's blobs, each counted once."""
    mine = Blob.objects.filter(images__team=team).distinct().values("pk")
    return int(Blob.objects.filter(pk__in=mine).aggregate(sum=Sum("size_bytes"))["sum"] or 0)


def promised_bytes(team: Team, *, but: Upload | None = None) -> int:
    """Bytes that uploads under way may still bring."""
    open_uploads = Upload.objects.filter(team=team, image=None, error="", expires_at__gt=timezone.now())
    if but is not None:
        open_uploads = open_uploads.exclude(pk=but.pk)
    return int(open_uploads.aggregate(sum=Sum("size_bytes"))["sum"] or 0)


def quota_bytes(team: Team, *, lock: bool = False) -> int:
    """What the team may hold; `lock` holds the quota's row until the transaction ends."""
    rows = TeamQuota.objects.select_for_update() if lock else TeamQuota.objects
    quota = rows.filter(team=team).first()
    return quota.image_bytes if quota is not None else TeamQuota(team=team).image_bytes


def over_quota(team: Team, wanted: int, used: int, allowed: int) -> ImageOverQuota:
    """The refusal, with its figures."""
    return ImageOverQuota(
        f"Team {team.slug} may hold {shown(allowed)} of images and holds {shown(used)}; this needs {shown(wanted)} more.",
        "Delete apps or old releases that are not needed, or ask the operator for a larger quota.",
        extra={"allowed_bytes": allowed, "used_bytes": used, "wanted_bytes": wanted},
    )
