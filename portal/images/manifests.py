"""Manifests that are pushed: read with bounds, checked against what the repository has, and registered.

Whatever is a manifest of OCI or Docker v2 is kept. One that can run here becomes an Image that can be deployed like an
uploaded one; an artifact, another machine's image and an index are rows of the same table with another `kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.images import quota, tags
from portal.images.actions import held_blobs
from portal.images.blobs import BlobMissing
from portal.images.ingest import Prepared, architecture, config_json, refusals
from portal.images.models import Image, Tag
from portal.images.registry import RegistryError, blobs_in, image_of
from portal.images.store import blob_store
from runtime.images import format_json as js
from runtime.images.format import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_BLOB_BYTES,
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    ArchivedImage,
    ImageConfig,
    ImageFault,
    Index,
    Manifest,
    check_digest,
    choose_platform,
    digest_of,
    parse_config,
    parse_manifest,
    shown,
)

MAX_BYTES = MAX_DOCUMENT_BYTES
MAX_TAGS = MAX_MANIFESTS = 10_000  # of a repository
REFERRERS_BYTES = 2 << 20  # of one page
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_ABSENT = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)  # layers that registries are not given


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as it was sent: `needs` are its blobs and `parts` its manifests, size by digest."""

    data: bytes
    digest: str
    media_type: str
    is_index: bool
    config_type: str = ""
    config: str = ""
    artifact_type: str = ""
    subject: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)


def invalid(text: str) -> RegistryError:
    """What cannot be a manifest."""
    return RegistryError(400, "MANIFEST_INVALID", text)


def read(data: bytes, content_type: str) -> Document:
    """Take a manifest apart; raises RegistryError MANIFEST_INVALID with what is wrong."""
    try:
        return _read(js.parse_object(data, "The manifest"), data, content_type.partition(";")[0].strip())
    except ImageFault as fault:
        raise invalid(f"{fault.message} {fault.hint}".strip()) from None


def _read(document: dict[str, Any], data: bytes, sent_as: str) -> Document:
    if document.get("schemaVersion") != 2:
        raise invalid("The manifest's schemaVersion is not 2: push the image again with a newer client.")
    said = js.text_of(document.get("mediaType"), "mediaType of the manifest")
    if said and sent_as not in ("", said):
        raise invalid(f"The manifest says it is {said[:100]} and was sent as {sent_as[:100]}.")
    media_type = said or sent_as or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise invalid(f"The media type {media_type[:100]!r} is not one of OCI's or Docker's manifests and indexes.")
    is_index = media_type in INDEX_TYPES
    if ("manifests" in document) != is_index or ("layers" in document and is_index):
        raise invalid("The manifest is neither clearly an image nor clearly an index.")
    common: dict[str, Any] = {
        "artifact_type": js.text_of(document.get("artifactType"), "artifactType of the manifest"),
        "subject": _subject(document.get("subject")),
        "annotations": js.mapping_of(document.get("annotations"), "annotations of the manifest"),
    }
    if is_index:
        parts = dict(
            _entry(item, "an entry of the index")[1:] for item in js.expect_list(document["manifests"], "manifests")
        )
        return Document(data, digest_of(data), media_type, is_index, parts=parts, **common)
    kind, config, size = _entry(document.get("config"), "config of the manifest")
    layers = [_entry(item, "a layer of the manifest") for item in js.expect_list(document.get("layers"), "layers")]
    needs = {digest: length for layer, digest, length in layers if layer not in _ABSENT} | {config: size}
    return Document(data, digest_of(data), media_type, is_index, kind, config, needs=needs, **common)


def _entry(value: Any, what: str) -> tuple[str, str, int]:
    """Media type, digest and size of a descriptor."""
    found = js.expect_object(value, what)
    size = js.number_of(found.get("size"), f"size of {what}", limit=MAX_BLOB_BYTES)
    return js.text_of(found.get("mediaType"), f"mediaType of {what}"), check_digest(found.get("digest"), what), size


def _subject(value: Any) -> str:
    return "" if value is None else _entry(value, "subject of the manifest")[1]


def register(actor: Actor, team: Team, repository: str, document: Document, tag: str) -> tuple[Image, bool]:
    """The manifest's row, under a tag when one is given; and whether that is news: another manifest than the tag had.

    Raises RegistryError MANIFEST_BLOB_UNKNOWN for what was not pushed before, PortalError (413) for the quota.
    """
    kind, config = _what(document)
    with refusals(), transaction.atomic():
        allowed = quota.quota_bytes(team, lock=True)
        _check_counts(repository, document.digest, tag)
        parts = _parts(repository, document)
        sizes = _present(repository, document) | {document.digest: len(document.data)}
        used = quota.used_bytes(team)
        if (
            used + len(document.data) > allowed
            and not quota.blobs_of_team(team).filter(digest=document.digest).exists()
        ):
            raise quota.over_quota(team, len(document.data), used, allowed)
        blob_store().add(document.data)
        keys = held_blobs(sizes)
        image = _row(actor, team, repository, document, tag)
        Image.objects.filter(pk=image.pk).update(kind=kind, config=config, size_bytes=sum(sizes.values()))
        image.blobs.set(keys)
        image.parts.set(parts)
        before = tags.image_of(repository, tag) if tag else None
        if tag:
            tags.move(image, tag)
        details = {"digest": document.digest, "size_bytes": sum(sizes.values()), "tag": tag, "kind": kind}
        record(actor, "push", "image", repository, team=team.slug, **details)
    image.refresh_from_db()
    return image, bool(tag) and before != image


def _row(actor: Actor, team: Team, repository: str, document: Document, tag: str) -> Image:
    again = {"created_at": timezone.now(), "deployed_at": None}  # sent anew: it is young again
    named = {"reference": f"{repository.partition('/')[2]}:{tag}"} if tag else {}
    fixed = {
        "team": team, "media_type": document.media_type, "size_bytes": 0, "created_by": actor.user,
        "artifact_type": (document.artifact_type or ("" if document.is_index else document.config_type))[:255],
        "subject": document.subject, "annotations": dict(document.annotations),
    }  # fmt: skip
    image, _ = Image.objects.update_or_create(
        repository=repository, digest=document.digest, defaults=again | named, create_defaults=again | named | fixed
    )
    return image


def _check_counts(repository: str, digest: str, tag: str) -> None:
    images, named = Image.objects.filter(repository=repository), Tag.objects.filter(repository=repository)
    full = not images.filter(digest=digest).exists() and images.count() >= MAX_MANIFESTS
    if full or (tag and not named.filter(name=tag).exists() and named.count() >= MAX_TAGS):
        text = f"{repository} has {MAX_TAGS:,} tags or manifests, which is the most: delete some that nobody needs."
        raise RegistryError(403, "DENIED", text)


def _present(repository: str, document: Document) -> dict[str, int]:
    """Sizes of the manifest's blobs, all of which the repository must have with the size the manifest says."""
    needs = document.needs
    here = dict(blobs_in(repository).filter(digest__in=list(needs)).values_list("digest", "size_bytes"))
    store = blob_store()
    for digest, size in needs.items():
        if digest not in here or not store.touch(digest):
            raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", f"{repository} has no blob {digest}: push it first.")
        if here[digest] != size:
            raise invalid(f"Blob {digest} has {here[digest]} bytes; the manifest says {size}.")
    return here


def _parts(repository: str, document: Document) -> list[Image]:
    rows = {
        image.digest: image for image in Image.objects.filter(repository=repository, digest__in=list(document.parts))
    }
    if missing := next((digest for digest in document.parts if digest not in rows), None):
        text = f"{repository} has no manifest {missing}: push it before the index that lists it."
        raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", text)
    return list(rows.values())


def _what(document: Document) -> tuple[str, dict[str, Any]]:
    """Kind, and `Image.config`: how to run it, or why it does not run here."""
    if document.is_index:
        return "index", {}
    if document.config_type not in CONFIG_TYPES or document.artifact_type:
        return "artifact", {"refusal": "It is an artifact, not an image."}
    try:
        return "image", _runnable(document)
    except ImageFault as fault:
        return "artifact", {"refusal": f"{fault.message} {fault.hint}".strip()}
    except BlobMissing:
        return "artifact", {"refusal": "Its configuration was not pushed."}  # `register` refuses it


def _runnable(document: Document) -> dict[str, Any]:
    manifest = parse_manifest(document.data, document.media_type)
    if not isinstance(manifest, Manifest):
        raise ImageFault("It is an index.")
    if blob_store().size(manifest.config.digest) > MAX_DOCUMENT_BYTES:
        raise ImageFault(f"Its configuration is longer than {shown(MAX_DOCUMENT_BYTES)}.")
    data = blob_store().read(manifest.config.digest)
    config = parse_config(data)
    _check_runs(manifest, config)
    image = ArchivedImage(manifest=manifest, config=config, config_data=data, tags=(), layer_blobs=())
    return config_json(Prepared(image, dict(document.needs), {}))


def _check_runs(manifest: Manifest, config: ImageConfig) -> None:
    wanted = architecture()
    if config.architecture not in ("", wanted):
        raise ImageFault(f"It is for linux/{config.architecture[:40]}; the hosts run linux/{wanted}.")
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageFault(f"Its configuration speaks of {len(config.diff_ids)} layers; it has {len(manifest.layers)}.")


def deployable(image: Image) -> Image:
    """The image itself, or the one of an index that runs here; raises RegistryError MANIFEST_INVALID with the reason."""
    found = image
    if image.kind == "index":
        try:
            index = parse_manifest(blob_store().read(image.digest), image.media_type)
            assert isinstance(index, Index)
            found = Image.objects.get(repository=image.repository, digest=choose_platform(index, architecture()).digest)
        except ImageFault as fault:
            raise invalid(f"{fault.message} {fault.hint}".strip()) from None
        except (BlobMissing, Image.DoesNotExist):
            raise invalid("The image that the index lists for this platform is not here any more.") from None
    if found.kind != "image":
        raise invalid(str(found.config.get("refusal", "It is not an image.")))
    return found


@transaction.atomic
def delete(actor: Actor, team: Team, repository: str, reference: str) -> None:
    """Delete a tag, or a manifest with all its tags; RegistryError when a release needs it or it is not there."""
    image = image_of(repository, reference)
    if tags.is_tag(reference):
        Tag.objects.filter(repository=repository, name=reference).delete()
        record(actor, "delete_tag", "image", repository, team=team.slug, tag=reference, digest=image.digest)
        return
    locked = Image.objects.select_for_update(of=("self",)).get(pk=image.pk)
    try:
        with transaction.atomic():
            locked.delete()
    except ProtectedError:
        text = f"A release of {repository} needs this image; it goes when the release goes."
        raise RegistryError(403, "DENIED", text) from None
    record(actor, "delete", "image", repository, team=team.slug, digest=image.digest)


def referrers(repository: str, digest: str, artifact_type: str, last: str) -> tuple[dict[str, Any], str]:
    """An index of what is about a manifest, after `last`; and the last digest of this page when there are more."""
    rows = Image.objects.filter(repository=repository, subject=digest, digest__gt=last).order_by("digest")
    if artifact_type:
        rows = rows.filter(artifact_type=artifact_type)
    found: list[dict[str, Any]] = []
    size, more = 0, ""
    for image in rows.prefetch_related("blobs").iterator(chunk_size=100):
        entry: dict[str, Any] = {"mediaType": image.media_type, "digest": image.digest, "size": _manifest_size(image)}
        if image.artifact_type:
            entry["artifactType"] = image.artifact_type
        if image.annotations:
            entry["annotations"] = image.annotations
        size += len(str(entry))
        if found and size > REFERRERS_BYTES:
            more = found[-1]["digest"]
            break
        found.append(entry)
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}, more


def _manifest_size(image: Image) -> int:
    return next((blob.size_bytes for blob in image.blobs.all() if blob.digest == image.digest), 0)
