"""The drivers that the shared suite runs, each with the ground it stands on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.storage.btrfs import Btrfs
from runtime.storage.driver import Driver
from runtime.storage.fuse_overlayfs import FuseOverlayfs
from runtime.storage.overlay2 import Overlay2
from runtime.storage.vfs import Vfs

MB = 1 << 20
SCRATCH = os.environ.get("MOORAGE_TEST_STATE", "/var/tmp")
MAX_DISK = 1024 * MB


@dataclass(frozen=True)
class Ground:
    """How a driver's stores are made, and where."""

    kind: Callable[..., Driver]
    make: Callable[[], AbstractContextManager[Path]]
    marks: tuple[pytest.MarkDecorator, ...] = ()

    def driver(self, store: Path) -> Driver:
        """The driver on a store."""
        return self.kind(store, max_disk_bytes=MAX_DISK)


@contextmanager
def folder() -> Iterator[Path]:
    """The file system that is there."""
    with tempfile.TemporaryDirectory(prefix="moorage-storage-", dir=SCRATCH) as path:
        yield Path(path)


@contextmanager
def in_file(make: str, *options: str, mount: str = "loop") -> Iterator[Path]:
    """A file system in a file, mounted on a folder."""
    with folder() as path:
        image, point = path / "image", path / "on"
        point.mkdir()
        with image.open("xb") as file:
            file.truncate(2048 * MB)
        subprocess.run([make, *options, str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", mount, str(image), str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)


NOT_IN_GUEST = (pytest.mark.host_only("fuse-overlayfs was not tried in the guest"),)
GROUNDS = {
    "overlay2": Ground(Overlay2, folder),
    "btrfs": Ground(Btrfs, lambda: in_file("mkfs.btrfs", "-q")),
    "fuse-overlayfs": Ground(FuseOverlayfs, folder, NOT_IN_GUEST),
    "vfs": Ground(Vfs, folder),
}
