"""Which images leave this host: those that nothing here has needed for long, sooner when the disk gets full. Pure.

What goes can be pulled again: the portal keeps what a release needs. Images with a tag were brought by a person and stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

UNUSED_KEPT_S = 7 * 24 * 3600.0
TIGHT_SHARE = 0.30  # of the disk free: unused images beyond the newest of an app go
FULL_SHARE = 0.15  # all unused ones go
SHARE_OF_BYTES = 200 << 30  # more of a disk than this does not count
KEPT_OF_AN_APP = 2  # when it is tight: the ones a roll back most likely asks for


@dataclass(frozen=True, slots=True)
class HostImage:
    """An image on the host: `digests` by repository, `<host>/<team>/<app>`."""

    id: str
    digests: Mapping[str, str]
    tagged: bool = False


def host_image(row: Mapping[str, object]) -> HostImage:
    """A row of Docker's `GET /images/json`."""
    names = [name.partition("@") for name in _texts(row.get("RepoDigests")) if "@sha256:" in name]
    tags = [tag for tag in _texts(row.get("RepoTags")) if tag != "<none>:<none>"]
    return HostImage(str(row["Id"]), {repository: digest for repository, _, digest in names}, bool(tags))


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def seen(
    images: Iterable[HostImage], needed: Collection[str], before: Mapping[str, float], now: float
) -> dict[str, float]:
    """When each image was needed last, by id; one that is new here counts as needed now."""
    return {
        image.id: now if needed_by(image, needed) else before.get(image.id, now) for image in images if not image.tagged
    }


def needed_by(image: HostImage, needed: Collection[str]) -> bool:
    """Whether its digest is among those of instances that should be here."""
    return any(digest in needed for digest in image.digests.values())


def removable(
    images: Iterable[HostImage], needed: Collection[str], last: Mapping[str, float], now: float, free_share: float
) -> list[str]:
    """Ids of the images to remove now, longest unused first."""
    idle = [image for image in images if image.id in last and not needed_by(image, needed)]
    idle.sort(key=lambda image: (last[image.id], image.id))
    if free_share < FULL_SHARE:
        return [image.id for image in idle]
    kept = _newest(idle) if free_share < TIGHT_SHARE else {image.id for image in idle}
    return [image.id for image in idle if image.id not in kept or now - last[image.id] > UNUSED_KEPT_S]


def _newest(idle: Iterable[HostImage]) -> set[str]:
    """The last used ones of each repository."""
    by_repository: dict[str, list[str]] = defaultdict(list)
    for image in idle:
        for repository in image.digests:
            by_repository[repository].append(image.id)
    return {identity for ids in by_repository.values() for identity in ids[-KEPT_OF_AN_APP:]}
