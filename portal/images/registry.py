"""The read half of the OCI distribution protocol (distribution-spec 1.1): what a host's engine, or skopeo, pulls by.

Errors have the bodies of the specification, so that every client shows their sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from portal.accounts.access import can
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.images.blobs import DIGEST, BlobMissing
from portal.images.models import Image
from portal.images.store import blob_store

type Kind = Literal["ping", "token", "manifest", "blob", "tags"]

_LABEL = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"/v2/(?P<name>{_LABEL}/{_LABEL})/(?:(?P<kind>manifests|blobs)/(?P<ref>[^/]+)|tags/(?P<tags>list))")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SCOPE = re.compile(rf"repository:(?P<name>{_LABEL}/{_LABEL}):[a-z,*]+")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class RegistryError(Exception):
    """An error of the specification: HTTP status, code and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> dict[str, list[dict[str, str]]]:
        """As distribution-spec, "Error Codes", has it."""
        return {"errors": [{"code": self.code, "message": str(self)}]}


@dataclass(frozen=True, slots=True)
class Call:
    """What a path asks for; `reference` is a digest or a tag."""

    kind: Kind
    repository: str = ""
    reference: str = ""


def parse_path(path: str) -> Call:
    """Read a path below /v2; raises RegistryError NAME_INVALID for what is no path of this protocol."""
    if path in ("/v2", "/v2/"):
        return Call("ping")
    if path == "/v2/token":
        return Call("token")
    match = _PATH.fullmatch(path)
    if match is None:
        raise RegistryError(404, "NAME_INVALID", "A repository is named <team>/<app>.")
    if match["tags"]:
        return Call("tags", match["name"])
    return Call("manifest" if match["kind"] == "manifests" else "blob", match["name"], match["ref"])


def scope_of(text: str) -> str:
    """The repository of `repository:<team>/<app>:pull`, or "" for a scope that names none."""
    match = _SCOPE.fullmatch(text)
    return match["name"] if match else ""


def may_pull(actor: Actor, repository: str) -> bool:
    """Whether the actor may read the team, and a token of one app this app."""
    team_slug, _, app_slug = repository.partition("/")
    team = Team.objects.filter(slug=team_slug).first()
    return team is not None and can(actor, "read", team) and actor.app_slug in ("", app_slug)


@dataclass(frozen=True, slots=True)
class Found:
    """A blob to send."""

    digest: str
    size_bytes: int
    media_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)


def find_manifest(repository: str, reference: str) -> Found:
    """A manifest by digest, or by tag: `latest` is the newest image, another tag the newest that came under it."""
    images = Image.objects.filter(repository=repository)
    if DIGEST.match(reference):
        images = images.filter(digest=reference)
    elif not _TAG.fullmatch(reference):
        raise RegistryError(404, "MANIFEST_UNKNOWN", "That is neither a tag nor a sha256 digest.")
    elif reference != "latest":
        images = images.filter(reference__endswith=f":{reference}")
    row = images.order_by("-created_at", "-pk").values_list("digest", "media_type").first()
    if row is None:
        raise RegistryError(404, "MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:80]}.")
    return _found(row[0], "MANIFEST_UNKNOWN", row[1])


def find_blob(repository: str, digest: str) -> Found:
    """A blob of one of the repository's images; a blob of other repositories is not shown to exist."""
    if not DIGEST.match(digest):
        raise RegistryError(400, "DIGEST_INVALID", "Only sha256 digests are known here.")
    if not Image.objects.filter(repository=repository, blobs__digest=digest).exists():
        raise RegistryError(404, "BLOB_UNKNOWN", f"{repository} has no blob {digest}.")
    return _found(digest, "BLOB_UNKNOWN", "application/octet-stream")


def _found(digest: str, code: str, media_type: str) -> Found:
    try:
        size = blob_store().size(digest)
    except BlobMissing:
        raise RegistryError(404, code, f"Blob {digest} is not in the store any more.") from None
    headers = {"docker-content-digest": digest, "etag": f'"{digest}"', "content-type": media_type}
    return Found(digest, size, media_type, headers)


def tags_of(repository: str) -> list[str]:
    """The tags its images came under, and `latest`."""
    rows = list(Image.objects.filter(repository=repository).values_list("reference", flat=True))
    if not rows:
        raise RegistryError(404, "NAME_UNKNOWN", f"{repository} has no image.")
    tags = {reference.rpartition(":")[2] for reference in rows if ":" in reference}
    return sorted({"latest", *(tag for tag in tags if _TAG.fullmatch(tag))})


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
