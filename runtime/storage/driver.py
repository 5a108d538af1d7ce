"""What every storage driver offers, and the plan of a root file system that `runtime.oci.rootfs` carries out.

Pure data and protocols, standard library only: the launcher reads plans too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault


class StorageFault(RuntimeFault):
    """A storage driver refuses or could not do something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPlan:
    """How to build one container's root, as the launcher's helper does it, in this order:

    1. clone `store_root` (absolute) with the container's id map, change into it;
    2. when `image` is set: attach that ext4 file to a loop device (AUTOCLEAR), mount it on `mountpoint` with
       `image_options` and the same id map, and write `reserved_clusters` to `/sys/fs/ext4/loopN/reserved_clusters`;
    3. mount overlay with `lowerdir=` `lowers` joined by ":" (topmost first), `upperdir=` `upper`, `workdir=` `work`
       and `options`, read-only when `readonly`.

    All paths but `store_root` are relative to it, also `upper` and `work` inside a mounted image. `size_bytes` is what the
    container may write, 0 without a limit. Drivers other than overlay fill `lowers` with one ready root, which may lie inside
    the image, and leave `upper` empty.
    """

    store_root: str
    lowers: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...] = ()
    image: str | None = None
    mountpoint: str | None = None
    image_options: tuple[str, ...] = ()
    reserved_clusters: int = 0
    size_bytes: int = 0
    readonly: bool = False
    driver: str = "overlay2"

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-ready values; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RootPlan:
        """Rebuild a plan from decoded JSON; raises StorageFault when it is none."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise StorageFault(
                f"The root plan is not readable: {error}.", "Remove and create the container again."
            ) from error

    def write(self, path: Path) -> None:
        """Write the plan to `path` (`root.json` of a container's folder)."""
        path.write_text(json.dumps(self.to_json()))

    @classmethod
    def read(cls, path: Path) -> RootPlan:
        """Read what `write` wrote."""
        return cls.from_json(json.loads(path.read_text()))


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPlan:
    """Where to read what a container changed, as `runtime.images.pack` does it in a namespace of its own.

    All paths but `store_root` are relative to it. `lowers` are the image's layers (topmost first), or its one ready root.
    `changed` is overlay's upper folder, or without `overlay` the container's whole root, to be compared with the image's;
    it may be missing when the container never ran. `image` is the ext4 file it lies in, to be mounted on `mountpoint`.
    """

    store_root: str
    lowers: tuple[str, ...]
    changed: str
    overlay: bool = True
    image: str | None = None
    mountpoint: str | None = None
    image_options: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DiffPlan:
        """Rebuild a plan from decoded JSON."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An unpacked read-only layer. `size_bytes` is the sum of its files, `path` its absolute folder."""

    chain_id: str
    diff_id: str
    size_bytes: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a container's writable layer takes on disk, and what it may take (0: no limit)."""

    used_bytes: int
    size_bytes: int


class Draft(Protocol):
    """A layer being unpacked. Its folder vanishes with `discard`, or at the next start, unless it was committed."""

    @property
    def path(self) -> Path:
        """The empty folder to unpack into."""

    def discard(self) -> None:
        """Remove what was unpacked; harmless after a commit."""


class Driver(Protocol):
    """One way to keep layers and writable layers. Synchronous; called from threads; every method may be repeated."""

    @property
    def name(self) -> str:
        """As `docker info` shows it, for instance "overlay2"."""

    @property
    def tells_free(self) -> bool:
        """Whether statvfs(2) of a running container's root knows the size; else only `usage` does."""

    def prepare(
        self, container_id: str, chain_ids: Sequence[str], *, size_bytes: int = 0, readonly: bool = False
    ) -> RootPlan:
        """Make the writable layer if it is not there (kept if it is, with the new size) and say how to mount the root.

        `chain_ids` are the image's, lowest layer first. `size_bytes` 0 means no limit. Raises StorageFault when a layer is
        missing or the size is above the store's greatest.
        """

    def set_quota(self, container_id: str, size_bytes: int) -> bool:
        """Change the writable layer's size, up or down. True: live; False: not mounted, it holds from the next prepare on."""

    def diff(self, container_id: str, chain_ids: Sequence[str]) -> DiffPlan:
        """Where to read what the container changed of the image with these layers (lowest first), also before it ever ran.

        Raises StorageFault. The plan holds until the container starts or ends.
        """

    def usage(self, container_id: str) -> Usage:
        """What the writable layer takes on the host's disk."""

    def remove(self, container_id: str) -> None:
        """Remove the writable layer; nothing happens when there is none."""

    def containers(self) -> list[str]:
        """Ids of the containers that have a writable layer, for finding what a crash left behind."""

    def layer(self, chain_id: str) -> Layer | None:
        """A committed layer."""

    def new_layer(self) -> Draft:
        """An empty folder to unpack a layer into."""

    def commit_layer(self, draft: Draft | None, *, chain_id: str, diff_id: str, size_bytes: int) -> Layer:
        """Make a draft the layer of `chain_id`. With None, a layer with the same `diff_id` is used again.

        A layer that is there already wins and the draft is discarded.
        """

    def find_diff(self, diff_id: str) -> Layer | None:
        """Any committed layer with this content, whatever lies below it."""

    def prune_layers(self, keep: Iterable[str]) -> list[str]:
        """Forget layers whose chain id is not in `keep` and that no container uses; returns their chain ids.

        Quick: the files go with the next `empty_trash`.
        """

    def empty_trash(self) -> None:
        """Remove from disk what was pruned; may take seconds."""

    def settle(self) -> None:
        """Bring committed layers to disk (a `sync`, may take seconds): after a crash of the host those not settled are forgotten."""
