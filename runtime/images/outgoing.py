"""The archive that `docker save` makes (Docker 25 and later): an OCI layout with `manifest.json` and `repositories` beside it.

Layers go out as plain tars, so their digests are their diff ids; they are made again of recipes and checked on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.images.format import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    ImageFault,
    Manifest,
    make_manifest,
    parse_manifest,
    parse_reference,
)
from runtime.images.format_tar_header import Kind, TarHeader
from runtime.images.format_tar_write import END, entry_header, padding
from runtime.images.nursery import Nursery
from runtime.images.packing import Packing
from runtime.images.recipes import Recipes
from runtime.storage.driver import Driver

_BLOBS = "blobs/sha256/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One image on its way out. `tags` are familiar names, none for an image that was asked for by id."""

    config: ImageConfig
    config_data: bytes
    manifest: Manifest
    tags: tuple[str, ...]


class LayerTars:
    """The layers' tars, made again."""

    def __init__(self, driver: Driver, recipes: Recipes, nursery: Nursery) -> None:
        self._driver, self._recipes, self._nursery = driver, recipes, nursery

    def size(self, diff_id: str) -> int:
        """Length of a layer's tar in bytes; raises ImageFault when it cannot be made."""
        return self._recipes.tar_bytes(diff_id)

    def read(self, diff_id: str) -> Iterator[bytes]:
        """The tar; raises ImageFault at the end when it is not the one of this digest."""
        layer = self._driver.find_diff(diff_id)
        if layer is None:
            raise ImageFault(f"The layer {diff_id} is not in the store.", "Load or pull the image again.")
        hashed = hashlib.sha256()
        with (
            self._recipes.opened(diff_id) as (recipe, spill),
            Packing.layer(self._nursery, layer.path, recipe, spill) as packing,
        ):
            for chunk in packing:
                hashed.update(chunk)
                yield chunk
        if f"sha256:{hashed.hexdigest()}" != diff_id:
            raise ImageFault(f"The files of the layer {diff_id} are no longer what they were.", "Load the image again.")


def plain_manifest(data: bytes, config: ImageConfig, config_data: bytes, size: Callable[[str], int]) -> Manifest:
    """The manifest that names plain layers: `data`, the one the image came with, when it does, so that its digest stays."""
    found = parse_manifest(data) if data else None
    if isinstance(found, Manifest) and found.media_type == OCI_MANIFEST:
        kept = tuple((layer.media_type, layer.digest) for layer in found.layers)
        if kept == tuple((OCI_LAYER, diff_id) for diff_id in config.diff_ids):
            return found
    layers = [Descriptor(media_type=OCI_LAYER, digest=item, size=size(item)) for item in config.diff_ids]
    digest = f"sha256:{hashlib.sha256(config_data).hexdigest()}"
    return make_manifest(Descriptor(media_type=OCI_CONFIG, digest=digest, size=len(config_data)), layers)


def archive(images: Sequence[Outgoing], tars: LayerTars) -> Iterator[bytes]:
    """The archive in pieces. Nothing is yielded before it is sure that every layer can be made."""
    sizes = {diff_id: tars.size(diff_id) for image in images for diff_id in image.config.diff_ids}
    documents = {image.manifest.config.digest: image.config_data for image in images}
    documents |= {image.manifest.digest: image.manifest.data for image in images}
    yield _folder("blobs") + _folder(_BLOBS.rstrip("/"))
    for digest, data in documents.items():
        yield _member(_BLOBS + digest[7:], data)
    for diff_id, size in sizes.items():
        yield entry_header(_file(_BLOBS + diff_id[7:], size))
        yield from tars.read(diff_id)
        yield padding(size)
    yield _member("index.json", _json(_index(images)))
    yield _member("manifest.json", _json([_legacy(image, sizes) for image in images]))
    yield _member("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    if repositories := _repositories(images):
        yield _member("repositories", _json(repositories))
    yield END


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _file(name: str, size: int) -> TarHeader:
    return TarHeader(name.encode(), Kind.FILE, 0o644, 0, 0, size, 0)


def _folder(name: str) -> bytes:
    return entry_header(TarHeader(f"{name}/".encode(), Kind.DIRECTORY, 0o755, 0, 0, 0, 0))


def _member(name: str, data: bytes) -> bytes:
    return entry_header(_file(name, len(data))) + data + padding(len(data))


def _index(images: Sequence[Outgoing]) -> dict[str, Any]:
    """One entry a name, as containerd writes and reads it."""
    entries: list[dict[str, Any]] = []
    for image in images:
        entry = {"mediaType": OCI_MANIFEST, "digest": image.manifest.digest, "size": len(image.manifest.data)}
        for tag in image.tags:
            reference = parse_reference(tag)
            names = {
                "io.containerd.image.name": f"{reference.name}:{reference.tag}",
                "org.opencontainers.image.ref.name": reference.tag,
            }
            entries.append(entry | {"annotations": names})
        if not image.tags:
            entries.append(entry)
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}


def _legacy(image: Outgoing, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "Config": _BLOBS + image.manifest.config.digest[7:],
        "RepoTags": list(image.tags) or None,
        "Layers": [_BLOBS + diff_id[7:] for diff_id in image.config.diff_ids],
        "LayerSources": {
            diff_id: {"mediaType": OCI_LAYER, "size": sizes[diff_id], "digest": diff_id}
            for diff_id in image.config.diff_ids
        },
    }


def _repositories(images: Sequence[Outgoing]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for image in images:
        for tag in image.tags if image.config.diff_ids else ():
            name, _, version = tag.rpartition(":")
            found.setdefault(name, {})[version] = image.config.diff_ids[-1][7:]
    return found
