"""What images take, why each stays, and when what can go goes: for pages and REST, in a constant number of queries."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Sum
from django.utils import timezone

from portal import figures
from portal.accounts.models import Team
from portal.images.collect import UNUSED_KEPT, unneeded, unused_images
from portal.images.models import Blob, BlobClaim, Image, Tag
from portal.images.quota import promised_bytes, quota_bytes, used_bytes
from portal.releases.models import Deployment, DeploymentState, Instance, Release

NAMED = 3  # releases that a sentence names


@dataclass(frozen=True, slots=True)
class Holding:
    """One image. `own_bytes` is what its removal frees: the blobs that no other image of the team has."""

    image: Image
    own_bytes: int
    why: str
    goes_at: dt.datetime | None  # None while a release has it


@dataclass(frozen=True, slots=True)
class Holdings:
    """A team's images against its quota; the largest first. `claimed_bytes` were promised to uploads that leave them out."""

    images: list[Holding]
    used_bytes: int
    quota_bytes: int
    promised_bytes: int
    claimed_bytes: int

    @property
    def going_bytes(self) -> int:
        """What frees itself within a week."""
        return sum(holding.own_bytes for holding in self.images if holding.goes_at is not None)


@dataclass(frozen=True, slots=True)
class StoreUse:
    """The whole store: each blob once. `teams` has (team, bytes); blobs that several have count for each."""

    blobs: int
    stored_bytes: int
    unneeded_blobs: int
    unneeded_bytes: int
    claimed_bytes: int
    teams: list[tuple[Team, int]]

    @property
    def shared_bytes(self) -> int:
        """What is saved because teams have the same blobs."""
        return max(0, sum(used for _, used in self.teams) + self.unneeded_bytes - self.stored_bytes)


def holdings(team: Team) -> Holdings:
    """What the team's images take and why each stays."""
    images = list(Image.objects.filter(team=team).order_by("-created_at", "-pk"))
    own, why = _own_bytes(team), _reasons(team)
    pushed = _pushed(team)
    found = [_holding(image, own.get(image.pk, 0), why.get(image.pk), pushed.get(image.pk, "")) for image in images]
    claims = BlobClaim.objects.filter(team=team, until__gt=timezone.now())
    claimed = Blob.objects.filter(pk__in=claims.values("blob_id")).exclude(images__team=team)
    return Holdings(
        sorted(found, key=lambda holding: -holding.own_bytes),
        used_bytes(team),
        quota_bytes(team),
        promised_bytes(team),
        int(claimed.aggregate(sum=Sum("size_bytes"))["sum"] or 0),
    )


def _own_bytes(team: Team) -> dict[int, int]:
    rows = Image.blobs.through.objects.filter(image__team=team).values_list("image_id", "blob_id", "blob__size_bytes")
    pairs = list(rows)
    shared = Counter(blob for _, blob, _ in pairs)
    found: dict[int, int] = defaultdict(int)
    for image, blob, size in pairs:
        found[image] += size if shared[blob] == 1 else 0
    return found


def _reasons(team: Team) -> dict[int, str]:
    """Why releases keep an image, by its key."""
    releases = Release.objects.filter(app__team=team).select_related("app__plan").order_by("app__slug", "-number")
    live = set(
        Deployment.objects.filter(app__team=team, state=DeploymentState.LIVE).values_list("release_id", flat=True)
    )
    live |= set(Instance.objects.filter(app__team=team, wanted="running").values_list("release_id", flat=True))
    by_image: dict[int, list[Release]] = defaultdict(list)
    for release in releases:
        by_image[release.image_id].append(release)
    return {key: sentence(rows, live) for key, rows in by_image.items()}


def _pushed(team: Team) -> dict[int, str]:
    """Why images stay that no release has: see `collect.unused_images`."""
    mine = Image.objects.filter(team=team)
    stays = mine.exclude(pk__in=unused_images().filter(team=team).values("pk")).filter(releases=None)
    tags: dict[int, list[str]] = defaultdict(list)
    for key, name in Tag.objects.filter(image__team=team, pushed=True).order_by("name").values_list("image", "name"):
        tags[key].append(name)
    found = {}
    for key, subject in stays.values_list("pk", "subject"):
        if names := tags.get(key):
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            found[key] = (
                f"It was pushed as {', '.join(names[:NAMED])}{more}; it stays until that tag is deleted or moves."
            )
        else:
            found[key] = (
                f"It is about {subject[:19]}, which is here." if subject else "An index that was pushed lists it."
            )
    return found


def sentence(releases: list[Release], running: Iterable[int]) -> str:
    """Why an image stays that these releases, at least one, have."""
    now = [release for release in releases if release.pk in set(running)]
    if now:
        return f"Release {now[0].number} of {now[0].app.slug} runs from it."
    numbers = ", ".join(str(release.number) for release in releases[:NAMED])
    more = f" and {len(releases) - NAMED} more" if len(releases) > NAMED else ""
    app = releases[0].app
    word = "Release" if len(releases) == 1 else "Releases"
    return f"{word} {numbers}{more} of {app.slug} can be rolled back to; plan {app.plan.slug} keeps {app.plan.releases_kept}."


def _holding(image: Image, own_bytes: int, why: str | None, pushed: str) -> Holding:
    if why is not None:
        return Holding(image, own_bytes, why, None)
    if pushed:
        return Holding(image, own_bytes, pushed, None)
    now, goes_at = timezone.now(), image.created_at + UNUSED_KEPT
    if goes_at <= now or image.deployed_at is not None:
        return Holding(image, own_bytes, "No release has it any more; it goes within the hour.", now)
    return Holding(
        image, own_bytes, f"No release has it; it goes {figures.ago(goes_at, now)}, unless it is deployed.", goes_at
    )


def store_use() -> StoreUse:
    """What the whole store holds."""
    everything = Blob.objects.aggregate(sum=Sum("size_bytes"))["sum"] or 0
    idle = unneeded()
    claims = BlobClaim.objects.filter(until__gt=timezone.now()).values("blob_id")
    claimed = Blob.objects.filter(pk__in=claims, images=None).aggregate(sum=Sum("size_bytes"))["sum"] or 0
    return StoreUse(
        Blob.objects.count(),
        everything,
        idle.count(),
        idle.aggregate(sum=Sum("size_bytes"))["sum"] or 0,
        claimed,
        _by_team(),
    )


def _by_team() -> list[tuple[Team, int]]:
    sizes: dict[int, int] = defaultdict(int)
    pairs = set(Image.blobs.through.objects.values_list("image__team_id", "blob_id", "blob__size_bytes"))
    for team, _, size in pairs:
        sizes[team] += size
    rows = [(team, sizes[team.pk]) for team in Team.objects.order_by("name") if sizes[team.pk]]
    return sorted(rows, key=lambda row: -row[1])
