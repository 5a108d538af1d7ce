"""Archives of Docker before 1.10: a folder a layer with `json` and `layer.tar`, and `repositories` with the names.

Their images have no config and no digests; a config is made of the layers' documents (Docker's image spec v1.0).
"""

from __future__ import annotations

import re
from typing import Any

from runtime.images import format_json as js
from runtime.images.format_archive import ArchiveReader
from runtime.images.format_archived import ArchivedImage, made_image
from runtime.images.format_blobs import StoredBlob
from runtime.images.format_building import legacy_config
from runtime.images.format_digest import MAX_LAYERS, ImageFault
from runtime.images.format_reference import parse_reference

_LAYER = re.compile(r"([0-9a-f]{64})/json")
_MAX_IMAGES = 100


class LegacyArchive:
    """What a finished archive of that format holds."""

    def __init__(self, reader: ArchiveReader) -> None:
        self._reader = reader
        names = (_LAYER.fullmatch(name) for name in reader.documents)
        self._layers = {match[1]: js.parse_object(reader.documents[match[0]], match[0]) for match in names if match}

    def images(self, architecture: str) -> list[ArchivedImage]:
        """The images, by the names of `repositories`, else those that are no other's parent. Raises ImageFault."""
        tops = self._named() or dict.fromkeys(self._layers.keys() - self._parents(), ())
        if len(tops) > _MAX_IMAGES:
            raise ImageFault(f"The archive has {len(tops)} images; {_MAX_IMAGES} is the limit.")
        return [self._image(top, names, architecture) for top, names in tops.items()]

    def _named(self) -> dict[str, tuple[str, ...]]:
        data = self._reader.documents.get("repositories") if self._layers else None
        found: dict[str, tuple[str, ...]] = {}
        for name, tags in (js.parse_object(data, "repositories") if data is not None else {}).items():
            for tag, layer_id in js.mapping_of(tags, "a repository of repositories").items():
                found[layer_id] = (*found.get(layer_id, ()), parse_reference(f"{name}:{tag}").familiar)
        return found

    def _parents(self) -> set[str]:
        return {str(layer.get("parent")) for layer in self._layers.values()}

    def _image(self, top: str, names: tuple[str, ...], architecture: str) -> ArchivedImage:
        chain: list[str] = []
        layer_id = top
        while layer_id:
            if layer_id not in self._layers:
                raise ImageFault(f"The archive lacks the layer {layer_id[:80]!r}.", "Save the image again.")
            chain.insert(0, layer_id)
            if len(chain) > MAX_LAYERS:
                raise ImageFault(f"The image has more than {MAX_LAYERS} layers, which is the limit.")
            layer_id = js.text_of(self._layers[layer_id].get("parent"), f"parent of {layer_id}")
        blobs = tuple(self._blob(name) for name in chain)
        documents: list[dict[str, Any]] = [self._layers[name] for name in chain]
        return made_image(legacy_config(documents, [blob.digest for blob in blobs], architecture), blobs, names)

    def _blob(self, layer_id: str) -> StoredBlob:
        blob = self._reader.find(f"{layer_id}/layer.tar")
        if blob is None:
            raise ImageFault(f"The archive lacks {layer_id}/layer.tar.", "Save the image again.")
        if blob.kind != "tar":
            raise ImageFault(
                f"{blob.name} is not plain, and the archive does not say what it unpacks to.",
                "Save the image with a newer Docker.",
            )
        return blob
