"""What the OCI distribution protocol (distribution-spec 1.1) reads: paths, errors, manifests, blobs, lists.

Errors have the bodies of the specification, so that every client shows their sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from django.db.models import Q, QuerySet
from django.utils import timezone

from portal.images import tags
from portal.images.blobs import DIGEST, BlobMissing
from portal.images.models import Blob, BlobClaim, Image, Tag
from portal.images.store import blob_store

type Kind = Literal["ping", "token", "catalog", "manifest", "blob", "tags", "referrers", "begin", "upload"]

_LABEL = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = rf"{_LABEL}/{_LABEL}"
_PATH = re.compile(
    rf"/v2/(?P<name>{NAME})/(?:(?P<begin>blobs/uploads/?)|blobs/uploads/(?P<upload>[0-9a-f-]{{32,36}})"
    r"|(?P<kind>manifests|blobs|referrers)/(?P<ref>[^/]+)|tags/(?P<tags>list))"
)
_KINDS: dict[str, Kind] = {"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}
_ALONE: dict[str, Kind] = {"/v2": "ping", "/v2/": "ping", "/v2/token": "token", "/v2/_catalog": "catalog"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_MAX_NAME = 90
PAGE, PAGE_MOST = 1000, 10_000


class RegistryError(Exception):
    """An error of the specification: HTTP status, code and a sentence."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, list[dict[str, str]]]:
        """As distribution-spec, "Error Codes", has it."""
        return {"errors": [{"code": self.code, "message": str(self)}]}


@dataclass(frozen=True, slots=True)
class Call:
    """What a path asks for; `reference` is a digest, a tag or an upload's id."""

    kind: Kind
    repository: str = ""
    reference: str = ""


def parse_path(path: str) -> Call:
    """Read a path below /v2; raises RegistryError NAME_INVALID for what is no path of this protocol."""
    if path in _ALONE:
        return Call(_ALONE[path])
    match = _PATH.fullmatch(path)
    if match is None or len(match["name"]) > _MAX_NAME:
        raise RegistryError(404, "NAME_INVALID", "A repository is named <team>/<app>.")
    if match["begin"]:
        return Call("begin", match["name"])
    if match["upload"]:
        return Call("upload", match["name"], match["upload"])
    if match["tags"]:
        return Call("tags", match["name"])
    return Call(_KINDS[match["kind"]], match["name"], match["ref"])


def check_digest(text: str) -> str:
    """A sha256 digest; raises RegistryError DIGEST_INVALID."""
    if not DIGEST.match(text):
        raise RegistryError(400, "DIGEST_INVALID", "Only sha256 digests are known here.")
    return text


@dataclass(frozen=True, slots=True)
class Found:
    """A blob to send."""

    digest: str
    size_bytes: int
    media_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)


def image_of(repository: str, reference: str) -> Image:
    """A manifest by digest or tag; RegistryError MANIFEST_UNKNOWN."""
    if DIGEST.match(reference):
        image = Image.objects.filter(repository=repository, digest=reference).first()
    elif ":" in reference:
        raise RegistryError(400, "DIGEST_INVALID", "Only sha256 digests are known here.")
    elif not tags.is_tag(reference):
        raise RegistryError(404, "MANIFEST_UNKNOWN", "That is neither a tag nor a sha256 digest.")
    else:
        image = tags.image_of(repository, reference)
    if image is None:
        raise RegistryError(404, "MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:80]}.")
    return image


def find_manifest(repository: str, reference: str) -> Found:
    """A manifest by digest or tag, to send."""
    image = image_of(repository, reference)
    return _found(image.digest, "MANIFEST_UNKNOWN", image.media_type)


def find_blob(repository: str, digest: str) -> Found:
    """A blob of the repository; a blob of other repositories is not shown to exist."""
    if not blobs_in(repository).filter(digest=check_digest(digest)).exists():
        raise RegistryError(404, "BLOB_UNKNOWN", f"{repository} has no blob {digest}.")
    return _found(digest, "BLOB_UNKNOWN", "application/octet-stream")


def blobs_in(repository: str) -> QuerySet[Blob]:
    """What the repository has: blobs of its manifests, and those that were pushed or mounted for the next one."""
    of_images = Image.blobs.through.objects.filter(image__repository=repository).values("blob_id")
    claimed = BlobClaim.objects.filter(repository=repository, until__gt=timezone.now()).values("blob_id")
    return Blob.objects.filter(Q(pk__in=of_images) | Q(pk__in=claimed))


def _found(digest: str, code: str, media_type: str) -> Found:
    try:
        size = blob_store().size(digest)
    except BlobMissing:
        raise RegistryError(404, code, f"Blob {digest} is not in the store any more.") from None
    headers = {"docker-content-digest": digest, "etag": f'"{digest}"', "content-type": media_type}
    return Found(digest, size, media_type, headers)


def tags_of(repository: str) -> list[str]:
    """The repository's tags; RegistryError NAME_UNKNOWN when nothing is in it."""
    if not Image.objects.filter(repository=repository).exists():
        raise RegistryError(404, "NAME_UNKNOWN", f"{repository} has no image.")
    return list(Tag.objects.filter(repository=repository).values_list("name", flat=True))


def repositories(team_ids: Iterable[int], app_slug: str = "") -> list[str]:
    """Repositories of these teams with something in them; with `app_slug` that app's alone."""
    rows = Image.objects.filter(team__in=list(team_ids)).values_list("repository", flat=True).distinct()
    return [name for name in rows if app_slug in ("", name.partition("/")[2])]


def page(names: Iterable[str], count: str, last: str) -> tuple[list[str], str]:
    """The names after `last`, at most `count`; and the last of them when there are more. RegistryError for a bad count."""
    if count and not (count.isascii() and count.isdecimal() and len(count) < 10):
        raise RegistryError(400, "PAGINATION_NUMBER_INVALID", f"n is {count[:20]!r}: give a whole number.")
    size = min(int(count), PAGE_MOST) if count else PAGE
    rest = [name for name in sorted(names) if name > last]
    return rest[:size], rest[size - 1] if 0 < size < len(rest) else ""


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and length that a Range header asks for (RFC 9110 section 14); None for the whole.

    Several ranges and other units are answered with the whole, as the RFC allows; raises RegistryError 416 beyond the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size - int(match[2])), size - 1
    else:
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if start > end or start >= size:
        raise RegistryError(416, "RANGE_INVALID", f"The blob has {size} bytes; the range {header[:60]} is not in it.")
    return start, end - start + 1
