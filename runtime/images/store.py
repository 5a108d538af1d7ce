"""The images of this host: what was loaded or pulled, under which names, and the layers they need.

Synchronous, called from threads; locks are inside. See `runtime.images.records` for what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from runtime.images.records import ImageRecord, LoadResult, PullProgress, RegistryAuth, Removed
from runtime.storage.driver import Driver


class ImageStore:
    """Images below `root` (`<state>/engine/images`), their layers in `driver`."""

    def __init__(self, root: Path, driver: Driver, *, insecure_registries: Collection[str] = ()) -> None:
        raise NotImplementedError  # body follows

    def load(self, stream: BinaryIO) -> list[LoadResult]:
        """Read a `docker save` archive or an OCI layout tar (plain, gzip, zstd); raises ImageFault with nothing left behind."""
        raise NotImplementedError

    def pull(
        self, reference: str, auth: RegistryAuth | None = None, progress: Callable[[PullProgress], None] | None = None
    ) -> ImageRecord:
        """Fetch an image by the distribution protocol; layers that are here are not fetched. Raises RegistryFault, ImageFault."""
        raise NotImplementedError

    def resolve(self, reference: str) -> ImageRecord:
        """Find an image by name[:tag], name@digest, id or a unique start of the id; raises NoSuchImage."""
        raise NotImplementedError

    def list(self) -> list[ImageRecord]:
        """All images, newest first."""
        raise NotImplementedError

    def tag(self, reference: str, name: str) -> None:
        """Give an image another name; a name that was another image's moves."""
        raise NotImplementedError

    def remove(self, reference: str, *, in_use: Collection[str] = (), force: bool = False) -> Removed:
        """Untag, and delete with the last name. `in_use` are ids of images that containers need: they stay (ImageInUse)."""
        raise NotImplementedError
