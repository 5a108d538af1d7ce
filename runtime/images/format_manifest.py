"""Manifests and indexes of OCI and Docker v2 schema 2, and the choice of a platform from an index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.images import format_json as js
from runtime.images.format_digest import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    MAX_BLOB_BYTES,
    MAX_LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageFault,
    check_digest,
    digest_of,
)

# GOARCH name and variants it runs, best first, by `uname -m`
MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "ppc64le": "ppc64le",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at a blob by digest and size in bytes (image-spec descriptor.md)."""

    media_type: str
    digest: str
    size: int
    platform: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest with the bytes it was read from; `layers` go from the lowest up."""

    media_type: str
    digest: str
    data: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests, for several platforms or several images."""

    media_type: str
    digest: str
    data: bytes
    manifests: tuple[Descriptor, ...]


def _descriptor(value: Any, what: str) -> Descriptor:
    data = js.expect_object(value, what)
    platform = js.expect_object(data.get("platform") or {}, f"platform of {what}")
    return Descriptor(
        media_type=js.text_of(data.get("mediaType"), f"mediaType of {what}"),
        digest=check_digest(data.get("digest"), what),
        size=js.number_of(data.get("size"), f"size of {what}", limit=MAX_BLOB_BYTES),
        platform={key: item for key, item in platform.items() if isinstance(item, str)},
        annotations=js.mapping_of(data.get("annotations"), f"annotations of {what}"),
    )


def _media_type(document: Mapping[str, Any], given: str) -> str:
    """The media type: as the document says, else as the transport said, else by its shape."""
    if document.get("schemaVersion") == 1:
        raise ImageFault(
            "The manifest is of Docker's schema 1, retired in 2017.", "Push the image again with a newer Docker."
        )
    found = js.text_of(document.get("mediaType"), "mediaType of the manifest") or given.partition(";")[0].strip()
    if found in MANIFEST_TYPES | INDEX_TYPES:
        return found
    if found:
        raise ImageFault(f"The manifest's media type {found[:100]!r} is not an image's.")
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or index; `media_type` is what the transport said. Raises ImageFault."""
    document = js.parse_object(data, "The manifest")
    kind = _media_type(document, media_type)
    if kind in INDEX_TYPES:
        found = js.expect_list(document.get("manifests"), "manifests of the index")
        manifests = tuple(_descriptor(item, "an entry of the index") for item in found)
        return Index(media_type=kind, digest=digest_of(data), data=data, manifests=manifests)
    layers = js.expect_list(document.get("layers"), "layers of the manifest")
    if len(layers) > MAX_LAYERS:
        raise ImageFault(f"The image has {len(layers)} layers; {MAX_LAYERS} is the limit.", "Squash it when building.")
    manifest = Manifest(
        media_type=kind,
        digest=digest_of(data),
        data=data,
        config=_descriptor(document.get("config"), "config of the manifest"),
        layers=tuple(_descriptor(item, "a layer of the manifest") for item in layers),
        annotations=js.mapping_of(document.get("annotations"), "annotations of the manifest"),
    )
    _check_image(manifest)
    return manifest


def _check_image(manifest: Manifest) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise ImageFault(f"The manifest's config is {manifest.config.media_type[:100]!r}: an artifact, not an image.")
    for layer in manifest.layers:
        if "nondistributable" in layer.media_type or "foreign" in layer.media_type:
            raise ImageFault(f"Layer {layer.digest} may not be distributed.", "Such layers are for Windows images.")
        if layer.media_type not in LAYER_TYPES:
            raise ImageFault(
                f"Layer {layer.digest} has the media type {layer.media_type[:100]!r}.",
                "Layers may be tar, plain or compressed with gzip, zstd, bzip2 or xz.",
            )


def make_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> Manifest:
    """An OCI manifest for an image that came without one; the same parts give the same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    return Manifest(media_type=OCI_MANIFEST, digest=digest_of(data), data=data, config=config, layers=tuple(layers))


def _fits(platform: Mapping[str, str], architecture: str, variant: str) -> bool:
    if platform.get("os", "linux") != "linux" or platform.get("architecture") != architecture:
        return False
    # amd64 v1 runs everywhere; an index names v2 and up only for special builds
    return platform.get("variant", "") in {"", variant, "v1" if architecture == "amd64" else "v8"}


def choose_platform(index: Index, architecture: str, variant: str = "") -> Descriptor:
    """The first manifest for Linux on `architecture` (GOARCH), else one that names no platform; raises ImageFault."""
    images = [item for item in index.manifests if item.media_type in MANIFEST_TYPES | {""}]
    fitting = [item for item in images if _fits(item.platform, architecture, variant)]
    fitting = fitting or [item for item in images if not item.platform]
    if fitting:
        return fitting[0]
    offered = sorted(
        {f"{i.platform.get('os', '?')}/{i.platform.get('architecture', '?')}" for i in images if i.platform}
    )
    raise ImageFault(
        f"The image is not for linux/{architecture}; it is for {', '.join(offered)[:200] or 'no platform at all'}.",
        f"Build it for linux/{architecture}.",
    )
