"""Unpacking layers on their way in, and committing an image whose layers are all here.

A `Batch` holds what one load or pull has unpacked. Nothing is committed until everything was verified; leaving the `with`
block discards the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from runtime.images.extract_layer import LayerLimits
from runtime.images.extraction import Extraction, Unpacked
from runtime.images.format import ImageFault, StoredBlob
from runtime.images.format_stream import COMPRESSIONS
from runtime.images.nursery import Nursery
from runtime.images.recipes import RecipeDraft, Recipes
from runtime.storage.driver import Draft, Driver

_RUNNING = 2  # children that may still write while the next layer arrives


@dataclass(slots=True)
class _Layer:
    draft: Draft
    recipe: RecipeDraft
    extraction: Extraction
    unpacked: Unpacked | None = None

    def finish(self) -> Unpacked:
        """Wait for the child; raises ImageFault."""
        if self.unpacked is None:
            self.unpacked = self.extraction.finish()
            self.extraction.close()
        return self.unpacked

    def discard(self) -> None:
        """End the child and remove what it wrote; harmless after a commit."""
        self.extraction.close()
        self.draft.discard()
        self.recipe.discard()


class LayerIntake:
    """One layer on its way in (a `BlobWriter`)."""

    def __init__(self, batch: Batch, layer: _Layer) -> None:
        self._batch, self.layer = batch, layer

    def write(self, data: memoryview) -> None:
        """The next bytes, as transported."""
        self.layer.extraction.write(data)

    def finish(self, blob: StoredBlob) -> None:
        """All bytes came and have the digest they should."""
        self._batch.arrived(blob.digest, self.layer)


class Batch:
    """The layers of one load or pull, by the digest they were transported with. Thread-safe."""

    def __init__(
        self, driver: Driver, recipes: Recipes, limits: LayerLimits, known: Callable[[str], str | None]
    ) -> None:
        self._driver, self._recipes, self._limits, self._known = driver, recipes, limits, known
        self._lock = threading.Lock()
        self._nursery = Nursery()
        self._layers: dict[str, _Layer] = {}
        self._started: list[_Layer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._nursery:
            for layer in self._started:
                layer.discard()

    def open(self, name: str, size: int, kind: str) -> LayerIntake | None:
        """A blob of an archive begins (`BlobSink`); None for documents and for layers that are here already."""
        if kind != "tar" and kind not in COMPRESSIONS:
            return None
        digits = name.removeprefix("blobs/sha256/")  # elsewhere a name promises nothing
        if digits != name and self._known(f"sha256:{digits}") is not None:
            return None
        return self.begin()

    def begin(self) -> LayerIntake:
        """Start a child for the next layer."""
        with ExitStack() as undo:
            draft, recipe = self._driver.new_layer(), self._recipes.draft()
            undo.callback(draft.discard)
            undo.callback(recipe.discard)
            layer = _Layer(draft, recipe, Extraction(self._nursery, draft.path, recipe, self._limits))
            undo.pop_all()
        with self._lock:
            self._started.append(layer)
        return LayerIntake(self, layer)

    def arrived(self, digest: str, layer: _Layer) -> None:
        """A layer's last byte was handed to its child. Waits for an older child when several still write."""
        with self._lock:
            self._layers[digest] = layer
            running = [item for item in self._started if item.unpacked is None]
        if len(running) > _RUNNING:
            running[0].finish()

    def diff_id(self, intake: LayerIntake) -> str:
        """The diff id of a layer that came as a whole and by no digest, under which it is known from here on."""
        found = intake.layer.finish()
        with self._lock:
            self._layers[found.diff_id] = intake.layer
        return found.diff_id

    def verify(self, digest: str, diff_id: str) -> None:
        """The layer that came as `digest` must unpack to `diff_id`; raises ImageFault, also when there is no such layer."""
        layer = self._layers.get(digest)
        found = layer.finish().diff_id if layer is not None else self._known(digest)
        if found != diff_id:
            raise ImageFault(
                f"The layer {digest} unpacks to {found or 'nothing'}; the image's config says {diff_id}.",
                "Build or save the image again.",
            )

    def commit(self, digests: Iterable[str], chain_ids: Iterable[str], diff_ids: Iterable[str]) -> int:
        """Make verified layers the driver's, lowest first; returns the sum of their sizes in bytes."""
        size = 0
        for digest, chain_id, diff_id in zip(digests, chain_ids, diff_ids, strict=True):
            layer = self._layers.get(digest)
            unpacked = layer.finish() if layer is not None else None
            committed = self._driver.commit_layer(
                layer.draft if layer is not None and layer.draft.path.exists() else None,
                chain_id=chain_id,
                diff_id=diff_id,
                size_bytes=unpacked.size_bytes if unpacked is not None else 0,
            )
            if layer is not None:
                self._recipes.keep(layer.recipe, diff_id)
            size += committed.size_bytes
        return size
