"""One image of an archive, once it is sure that config, manifest and layers belong together."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.images.format_blobs import StoredBlob
from runtime.images.format_config import ImageConfig, parse_config
from runtime.images.format_digest import MAX_LAYERS, OCI_CONFIG, ImageFault, digest_of, layer_media_type
from runtime.images.format_manifest import Descriptor, Manifest, make_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """One image of an archive: every layer it needs was in the archive with the digest it should have.

    `tags` are familiar names ("hello:latest"). `layer_blobs` are in the order of `manifest.layers`. Manifest and config may
    have been made here, for archives of formats that have none: then they are no blobs of the archive.
    """

    manifest: Manifest
    config: ImageConfig
    config_data: bytes
    tags: tuple[str, ...]
    layer_blobs: tuple[StoredBlob, ...]

    @property
    def id(self) -> str:
        """The image id: the digest of the config."""
        return self.manifest.config.digest


def compression(blob: StoredBlob) -> str:
    """How a layer is compressed, "plain" when it is not; raises ImageFault for what is no layer."""
    if blob.kind in {"json", "unknown"}:
        raise ImageFault(f"{blob.name} should be a layer and is no tar archive.", "Save the image again.")
    return "plain" if blob.kind == "tar" else blob.kind


def made_image(config_data: bytes, blobs: tuple[StoredBlob, ...], tags: tuple[str, ...]) -> ArchivedImage:
    """An image that came without a manifest; raises ImageFault."""
    if len(blobs) > MAX_LAYERS:
        raise ImageFault(f"The image has {len(blobs)} layers; {MAX_LAYERS} is the limit.")
    layers = [
        Descriptor(media_type=layer_media_type(compression(blob)), digest=blob.digest, size=blob.size) for blob in blobs
    ]
    config = Descriptor(media_type=OCI_CONFIG, digest=digest_of(config_data), size=len(config_data))
    return checked_image(make_manifest(config, layers), config_data, blobs, tags)


def checked_image(
    manifest: Manifest, config_data: bytes, blobs: tuple[StoredBlob, ...], tags: tuple[str, ...]
) -> ArchivedImage:
    """Config and layers must agree in number, and a plain layer's digest is its diff id; raises ImageFault."""
    config = parse_config(config_data)
    if len(config.diff_ids) != len(blobs):
        raise ImageFault(f"The image's config names {len(config.diff_ids)} layers, its manifest {len(blobs)}.")
    for diff_id, blob in zip(config.diff_ids, blobs, strict=True):
        if compression(blob) == "plain" and blob.digest != diff_id:
            raise ImageFault(
                f"{blob.name} is {blob.digest}, the image's config says {diff_id}.", "Save the image again."
            )
    return ArchivedImage(manifest=manifest, config=config, config_data=config_data, tags=tags, layer_blobs=blobs)
