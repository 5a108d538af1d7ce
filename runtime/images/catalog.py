"""What the image store keeps on disk: configs and manifests by digest, one record an image, and the names.

    blobs/sha256/<hex>     configs and manifests (layers are kept unpacked, by the storage driver)
    records/<hex>.json     one image: digests of its manifest and layers, its size
    recipes/<hex>          how a layer's tar is made again (`runtime.images.recipes`)
    names.json             {"tags": {name: id}, "digests": {name@digest: id}}

Written by temp, fsync, rename; a record is written after its blobs and before its names. Not thread-safe: `ImageStore` locks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.images.format import ImageConfig, parse_config, parse_reference
from runtime.images.records import ImageRecord
from runtime.kernel.process import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One image as it lies on disk; `layer_digests` and the config's diff ids belong together, lowest first."""

    id: str
    manifest_digest: str
    manifest_media_type: str
    layer_digests: tuple[str, ...]
    size_bytes: int


class Catalog:
    """The images below `root`. `complete` says whether an image's layers are all there; others are dropped at start."""

    def __init__(self, root: Path, complete: Callable[[ImageConfig], bool]) -> None:
        self._root = root
        self._stored: dict[str, Stored] = {}
        self._configs: dict[str, ImageConfig] = {}
        for name in ("blobs/sha256", "records"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._tags, self._digests = self._read_names()
        self._read(complete)
        self._sweep()

    def ids(self) -> list[str]:
        """Ids of all images."""
        return list(self._stored)

    def config(self, image_id: str) -> ImageConfig:
        """The config of an image."""
        return self._configs[image_id]

    def documents(self, image_id: str) -> tuple[bytes, bytes]:
        """The bytes of an image's config and of its manifest."""
        return (
            self._blob_path(image_id).read_bytes(),
            self._blob_path(self._stored[image_id].manifest_digest).read_bytes(),
        )

    def tags_of(self, repository: str) -> dict[str, str]:
        """Image ids by tag of one repository, given as a familiar name."""
        return {name: owner for name, owner in self._tags.items() if name.rpartition(":")[0] == repository}

    def stored(self, image_id: str) -> Stored | None:
        """What is kept of an image."""
        return self._stored.get(image_id)

    def record(self, image_id: str) -> ImageRecord:
        """All there is to say of an image."""
        stored, config = self._stored[image_id], self._configs[image_id]
        return ImageRecord(
            id=image_id,
            manifest_digest=stored.manifest_digest,
            manifest_media_type=stored.manifest_media_type,
            repo_tags=tuple(sorted(name for name, owner in self._tags.items() if owner == image_id)),
            repo_digests=tuple(sorted(name for name, owner in self._digests.items() if owner == image_id)),
            diff_ids=config.diff_ids,
            chain_ids=config.chain_ids,
            size_bytes=stored.size_bytes,
            config=config,
        )

    def tagged(self, name: str) -> str | None:
        """Id of the image with this familiar name and tag, or name and digest."""
        return self._tags.get(name) or self._digests.get(name)

    def starting_with(self, digits: str) -> list[str]:
        """Ids that begin with these hex digits."""
        return [image_id for image_id in self._stored if image_id.startswith(f"sha256:{digits}")]

    def layer_diffs(self) -> dict[str, str]:
        """Diff ids of the layers of all images by the digest they were transported with."""
        return {
            digest: diff_id
            for image_id, stored in self._stored.items()
            for digest, diff_id in zip(stored.layer_digests, self._configs[image_id].diff_ids, strict=True)
        }

    def add(self, stored: Stored, config_data: bytes, manifest_data: bytes) -> None:
        """Keep an image, without a name yet."""
        config = parse_config(config_data)
        self._write_blob(stored.id, config_data)
        self._write_blob(stored.manifest_digest, manifest_data)
        before = self._stored.get(stored.id)
        write_atomic(self._record_path(stored.id), json.dumps(asdict(stored)).encode(), durable=True)
        self._stored[stored.id], self._configs[stored.id] = stored, config
        if before is not None and before.manifest_digest != stored.manifest_digest:
            self._sweep()

    def name(self, image_id: str, *, tags: Iterable[str] = (), digests: Iterable[str] = ()) -> None:
        """Give an image names; those of other images move."""
        self._tags |= dict.fromkeys(tags, image_id)
        self._digests |= dict.fromkeys(digests, image_id)
        self._write_names()

    def unname(self, names: Iterable[str]) -> None:
        """Take names away, tags and digests alike."""
        for name in names:
            self._tags.pop(name, None)
            self._digests.pop(name, None)
        self._write_names()

    def remove(self, image_id: str) -> None:
        """Forget an image and its names; the layers are the driver's."""
        names = [name for found in (self._tags, self._digests) for name, owner in found.items() if owner == image_id]
        self.unname(names)
        self._record_path(image_id).unlink(missing_ok=True)
        del self._stored[image_id], self._configs[image_id]
        self._sweep()

    def _blob_path(self, digest: str) -> Path:
        return self._root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _record_path(self, image_id: str) -> Path:
        return self._root / "records" / f"{image_id.removeprefix('sha256:')}.json"

    def _write_blob(self, digest: str, data: bytes) -> None:
        if not self._blob_path(digest).exists():
            write_atomic(self._blob_path(digest), data, durable=True)

    def _write_names(self) -> None:
        data = {"tags": self._tags, "digests": self._digests}
        write_atomic(self._root / "names.json", json.dumps(data, indent=1).encode(), durable=True)

    def _read_names(self) -> tuple[dict[str, str], dict[str, str]]:
        path = self._root / "names.json"
        data = json.loads(path.read_text()) if path.exists() else {"tags": {}, "digests": {}}
        return data["tags"], data["digests"]

    def _read(self, complete: Callable[[ImageConfig], bool]) -> None:
        """Read the records; an image that lost its blobs or layers in a crash of the host is forgotten."""
        for path in (self._root / "records").glob("*.json"):
            data = json.loads(path.read_text())
            stored = Stored(**data | {"layer_digests": tuple(data["layer_digests"])})
            config_path = self._blob_path(stored.id)
            config = parse_config(config_path.read_bytes()) if config_path.exists() else None
            if config is None or not complete(config):
                path.unlink()
                continue
            self._stored[stored.id], self._configs[stored.id] = stored, config
        for names in (self._tags, self._digests):
            for name in [name for name, owner in names.items() if owner not in self._stored]:
                del names[name]

    def _sweep(self) -> None:
        """Remove blobs no image needs, and what a crash left half-written."""
        used = {digest for stored in self._stored.values() for digest in (stored.id, stored.manifest_digest)}
        wanted = {digest.removeprefix("sha256:") for digest in used}
        for path in (self._root / "blobs" / "sha256").iterdir():
            if path.name not in wanted:
                path.unlink()
        for folder in (self._root, self._root / "records"):
            for path in folder.glob(".*"):
                path.unlink()


def tag_of(name: str) -> str:
    """A name given by a person as the familiar name and tag: "alpine" is "alpine:latest"."""
    return parse_reference(name).familiar
