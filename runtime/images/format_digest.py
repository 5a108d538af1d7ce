"""Digests, media types and the limits that everything hostile is held to.

Sources: OCI image-spec 1.1 (descriptor.md, media-types.md), Docker image manifest version 2 schema 2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from runtime.errors import RuntimeFault

MAX_DOCUMENT_BYTES: Final = 4 << 20  # a manifest, index or config; registries hold manifests to the same 4 MiB
MAX_LAYERS: Final = 127  # Docker's limit, and what overlay's option page holds
MAX_BLOB_BYTES: Final = 1 << 40
MAX_ID: Final = 65535  # a container's id range is 65,536 ids wide

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_COMPRESSIONS: Final = ("gzip", "zstd", "bzip2", "xz")  # the last two are in no specification, `docker load` takes them
LAYER_TYPES: Final = frozenset(
    {
        OCI_LAYER,
        DOCKER_LAYER,
        *(f"{OCI_LAYER}+{name}" for name in _COMPRESSIONS),
        *(f"{DOCKER_LAYER}.{name}" for name in _COMPRESSIONS),
    }
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageFault(RuntimeFault):
    """An image, archive or layer is refused; nothing of it stays."""


def is_digest(text: str) -> bool:
    """True for `sha256:` and 64 lower-case hex digits, the only algorithm accepted here."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: object, what: str) -> str:
    """`text` when it is a digest; raises ImageFault naming `what` otherwise."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise ImageFault(
        f"{what} has {str(text)[:80]!r} where a sha256 digest belongs.", "Only sha256 digests are accepted."
    )


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Chain ids of the layers, lowest first (image-spec config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def layer_media_type(compression: str) -> str:
    """OCI media type of a layer compressed as "plain", "gzip", "zstd", "bzip2" or "xz"; raises ImageFault for others."""
    if compression == "plain":
        return OCI_LAYER
    if compression not in _COMPRESSIONS:
        raise ImageFault(f"A layer is compressed with {compression}.", "Layers may be plain, gzip, zstd, bzip2 or xz.")
    return f"{OCI_LAYER}+{compression}"


def shown(size_bytes: float) -> str:
    """A size as people read it: "512 bytes", "1.5 MB"."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
    return f"{size_bytes / 1000:.3g} TB"
