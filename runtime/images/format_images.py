"""Which images an archive holds, after all of it was read: from `index.json` (OCI) or `manifest.json` (Docker)."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.images import format_json as js
from runtime.images.format_archive import ArchiveReader
from runtime.images.format_archived import ArchivedImage, checked_image, made_image
from runtime.images.format_blobs import StoredBlob
from runtime.images.format_building import rootfs_config
from runtime.images.format_digest import MANIFEST_TYPES, MAX_LAYERS, ImageFault, digest_of
from runtime.images.format_legacy import LegacyArchive
from runtime.images.format_manifest import Descriptor, Index, Manifest, choose_platform, parse_manifest
from runtime.images.format_reference import parse_reference
from runtime.images.format_rootfs import RootfsIntake

_CONTAINERD_NAME = "io.containerd.image.name"
_OCI_NAME = "org.opencontainers.image.ref.name"
_MAX_IMAGES = 100
_MAX_INDEX_DEPTH = 3


def images(reader: ArchiveReader, architecture: str) -> list[ArchivedImage]:
    """The images of a finished archive for linux/`architecture`; raises ImageFault when there is none or something is missing."""
    if reader.rootfs is not None:
        return [_rootfs_image(reader.rootfs, architecture)]
    docker = _DockerArchive(reader)
    if "index.json" in reader.documents:
        found = _from_layout(reader, architecture, docker.tags)
    else:
        found = docker.images() or LegacyArchive(reader).images(architecture)
    if not found:
        raise ImageFault(
            "The archive holds no image: it has neither index.json nor manifest.json.",
            "Make it with `docker save`, as an OCI layout, or as a tar of a root file system with its usual folders.",
        )
    return found


def _rootfs_image(rootfs: RootfsIntake, architecture: str) -> ArchivedImage:
    data = rootfs_config(rootfs.diff_id, architecture)
    return made_image(data, (rootfs.blob,), ())


def _familiar(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_reference(name).familiar for name in names if name))


def _is_name(text: str) -> bool:
    """Whether an annotation, which may be any text, is a name with a tag."""
    try:
        return ("/" in text or ":" in text) and bool(parse_reference(text))
    except ImageFault:
        return False


class _DockerArchive:
    """`manifest.json` of `docker save`: [{"Config": …, "RepoTags": […], "Layers": […]}]."""

    def __init__(self, reader: ArchiveReader) -> None:
        self._reader = reader
        self._entries = []
        data = reader.documents.get("manifest.json")
        if data is not None:
            entries = js.expect_list(js.parse(data, "manifest.json"), "manifest.json")
            if len(entries) > _MAX_IMAGES:
                raise ImageFault(f"The archive has {len(entries)} images; {_MAX_IMAGES} is the limit.")
            self._entries = [js.expect_object(entry, "an entry of manifest.json") for entry in entries]

    @property
    def tags(self) -> dict[str, tuple[str, ...]]:
        """Tags by image id."""
        found: dict[str, tuple[str, ...]] = {}
        for entry in self._entries:
            blob = self._blob(js.text_of(entry.get("Config"), "Config in manifest.json"))
            found[blob.digest] = found.get(blob.digest, ()) + js.texts_of(
                entry.get("RepoTags"), "RepoTags in manifest.json"
            )
        return found

    def images(self) -> list[ArchivedImage]:
        """The images, with a manifest made here."""
        return [
            self._image(
                js.text_of(entry.get("Config"), "Config in manifest.json"),
                js.texts_of(entry.get("Layers"), "Layers in manifest.json"),
                js.texts_of(entry.get("RepoTags"), "RepoTags in manifest.json"),
            )
            for entry in self._entries
        ]

    def _blob(self, name: str) -> StoredBlob:
        blob = self._reader.find(name)
        if blob is None:
            raise ImageFault(
                f"manifest.json names {name[:200]!r}, which the archive does not have.", "Save the image again."
            )
        return blob

    def _image(self, config_name: str, layer_names: tuple[str, ...], tags: tuple[str, ...]) -> ArchivedImage:
        config_blob = self._blob(config_name)
        data = _document(self._reader, config_blob)
        if len(layer_names) > MAX_LAYERS:
            raise ImageFault(f"The image has {len(layer_names)} layers; {MAX_LAYERS} is the limit.")
        return made_image(data, tuple(self._blob(name) for name in layer_names), _familiar(tags))


def _document(reader: ArchiveReader, blob: StoredBlob) -> bytes:
    data = reader.documents.get(blob.name)
    if data is None:
        raise ImageFault(f"{blob.name} should be a JSON document and is none.", "Save the image again.")
    return data


def _from_layout(reader: ArchiveReader, architecture: str, tags: dict[str, tuple[str, ...]]) -> list[ArchivedImage]:
    index = parse_manifest(reader.documents["index.json"])
    if not isinstance(index, Index):
        raise ImageFault("index.json is a manifest, not an index.", "Save the image again.")
    if len(index.manifests) > _MAX_IMAGES:
        raise ImageFault(f"The archive has {len(index.manifests)} images; {_MAX_IMAGES} is the limit.")
    entries: list[tuple[Manifest, tuple[str, ...]]] = []
    for entry in _wanted(index, architecture):
        names = entry.annotations.get(_CONTAINERD_NAME) or entry.annotations.get(_OCI_NAME, "")
        manifest = _manifest(reader, entry, architecture, depth=0)
        entries.append((manifest, (names,) if _is_name(names) else ()))
    grouped: dict[str, tuple[Manifest, tuple[str, ...]]] = {}
    for manifest, names_found in entries:
        _, before = grouped.get(manifest.config.digest, (manifest, tags.get(manifest.config.digest, ())))
        grouped[manifest.config.digest] = (manifest, before + names_found)
    return [_layout_image(reader, manifest, found) for manifest, found in grouped.values()]


def _wanted(index: Index, architecture: str) -> list[Descriptor]:
    """All entries when each is an image of its own; one when they are one image's platforms."""
    images_found = [entry for entry in index.manifests if entry.platform.get("architecture") != "unknown"]
    names = {entry.annotations.get(_CONTAINERD_NAME, entry.annotations.get(_OCI_NAME, "")) for entry in images_found}
    if len(images_found) > 1 and len(names) == 1 and all(entry.platform for entry in images_found):
        return [choose_platform(index, architecture)]
    return images_found


def _manifest(reader: ArchiveReader, entry: Descriptor, architecture: str, *, depth: int) -> Manifest:
    blob = _blob(reader, entry, "The index")
    found = parse_manifest(_document(reader, blob), entry.media_type)
    if isinstance(found, Manifest):
        return found
    if depth >= _MAX_INDEX_DEPTH:
        raise ImageFault(f"The archive nests indexes deeper than {_MAX_INDEX_DEPTH}.")
    return _manifest(reader, choose_platform(found, architecture), architecture, depth=depth + 1)


def _blob(reader: ArchiveReader, entry: Descriptor, what: str) -> StoredBlob:
    blob = reader.find(f"blobs/sha256/{entry.digest.removeprefix('sha256:')}")
    if blob is None:
        raise ImageFault(f"{what} names {entry.digest}, which the archive does not have.", "Save the image again.")
    if blob.size != entry.size:
        raise ImageFault(
            f"{what} says {entry.digest} has {entry.size} bytes; it has {blob.size}.", "Save the image again."
        )
    return blob


def _layout_image(reader: ArchiveReader, manifest: Manifest, names: tuple[str, ...]) -> ArchivedImage:
    config_blob = _blob(reader, manifest.config, "The manifest")
    blobs = tuple(_blob(reader, layer, "The manifest") for layer in manifest.layers)
    data = _document(reader, config_blob)
    if digest_of(data) != manifest.config.digest or manifest.media_type not in MANIFEST_TYPES:
        raise ImageFault("The manifest and its config do not belong together.")
    return checked_image(manifest, data, blobs, _familiar(names))
