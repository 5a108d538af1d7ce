"""Pushing an image: the layers that the registry lacks, as plain tars, then config and manifest.

A layer that the registry has as it once came here (compressed, by the digest in the image's manifest) is not sent; when it has
all of them so, the image's own manifest is pushed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runtime.images.format import OCI_CONFIG, OCI_LAYER, Descriptor, ImageConfig, Manifest, digest_of, make_manifest
from runtime.images.outgoing import LayerTars
from runtime.images.records import PullProgress
from runtime.images.registry_push import WritableRegistry

PARALLEL_LAYERS = 2

type Report = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What is pushed where; `manifest` is the image's own."""

    registry: WritableRegistry
    tag: str
    config: ImageConfig
    config_data: bytes
    manifest: Manifest
    tars: LayerTars
    report: Report

    def run(self) -> Manifest:
        """Push all; returns the manifest that the tag now names there. Raises RegistryFault, ImageFault."""
        rows = list(zip(self.manifest.layers, self.config.diff_ids, strict=True))
        with ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="push") as pool:
            layers = list(pool.map(lambda row: self._layer(*row), rows))
        config = Descriptor(media_type=OCI_CONFIG, digest=digest_of(self.config_data), size=len(self.config_data))
        if not self.registry.has(config.digest):
            self.registry.upload(config, iter([self.config_data]))
        whole = layers == [layer for layer, _ in rows]
        manifest = self.manifest if whole else make_manifest(config, [_as_oci(layer) for layer in layers])
        self.registry.put_manifest(manifest, self.tag)
        return manifest

    def _layer(self, known: Descriptor, diff_id: str) -> Descriptor:
        """The layer as the registry has it from now on."""
        plain = Descriptor(media_type=OCI_LAYER, digest=diff_id, size=self.tars.size(diff_id))
        for descriptor in (known, plain) if known.digest != plain.digest else (known,):
            if self.registry.has(descriptor.digest):
                self.report(PullProgress(what=descriptor.digest, status="Layer already exists"))
                return descriptor
        self.registry.upload(plain, self._watched(plain))
        self.report(PullProgress(what=plain.digest, status="Pushed"))
        return known if known.digest == plain.digest else plain

    def _watched(self, layer: Descriptor) -> Iterator[bytes]:
        done = 0
        for chunk in self.tars.read(layer.digest):
            yield chunk
            done += len(chunk)
            step = PullProgress(what=layer.digest, status="Pushing", current_bytes=done, total_bytes=layer.size)
            self.report(step)


def _as_oci(layer: Descriptor) -> Descriptor:
    """A layer of Docker's media type by OCI's name: one manifest has one family of types."""
    suffix = layer.media_type.rpartition("tar")[2].replace(".", "+")
    return Descriptor(media_type=OCI_LAYER + suffix, digest=layer.digest, size=layer.size)
