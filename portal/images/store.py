"""Where this portal keeps blobs and uploads."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from portal.config import config
from portal.images.blobs import BlobStore


@cache
def _store_at(root: Path) -> BlobStore:
    return BlobStore(root)


def blob_store() -> BlobStore:
    """`<state>/portal/blobs`."""
    return _store_at(config().portal_dir / "blobs")


def uploads_dir() -> Path:
    """`<state>/portal/uploads`: one file for each upload under way, named by its id."""
    folder = config().portal_dir / "uploads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
