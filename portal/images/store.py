"""Where this portal keeps blobs and uploads."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from portal.config import config
from portal.images.blobs import Blobs, BlobStore


@cache
def _store_at(root: Path, url: str) -> Blobs:
    if not url:
        return BlobStore(root)
    from portal.images.objects import ObjectStore, storage_of

    return ObjectStore(storage_of(url, config().secrets / "blobs"), root / "incoming")


def blob_store() -> Blobs:
    """`<state>/portal/blobs`, or the object store that MOORAGE_BLOBS_URL names."""
    return _store_at(config().portal_dir / "blobs", config().blobs_url)


def uploads_dir() -> Path:
    """`<state>/portal/uploads`: one file for each upload under way, named by its id."""
    folder = config().portal_dir / "uploads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def pushes_dir() -> Path:
    """`<state>/portal/pushes`: one file for each blob that is being pushed, beside the store, so that it need not be copied."""
    folder = config().portal_dir / "pushes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
