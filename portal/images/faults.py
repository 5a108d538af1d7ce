"""What images are refused for, with the status each door answers."""

from __future__ import annotations

from portal.errors import NoSpace as NoSpace
from portal.errors import OverQuota, PortalError


class ImageRefused(PortalError):
    """The archive is corrupt, hostile or for another machine; nothing of it stays."""

    code = "image_refused"
    status = 422


class ImageOverQuota(OverQuota):
    """The team's image bytes would not hold it."""

    status = 413


class OffsetConflict(PortalError):
    """A chunk that does not begin where the upload ends (tus: 409)."""

    code = "offset_conflict"
    status = 409


class UploadBusy(PortalError):
    """Another request is writing to this upload or reading it (tus: 423)."""

    code = "upload_busy"
    status = 423


class ChecksumMismatch(PortalError):
    """A chunk that was damaged on its way (tus: 460)."""

    code = "checksum_mismatch"
    status = 460


class StoreUnavailable(PortalError):
    """The object store does not answer, or refuses."""

    code = "store_unavailable"
    status = 503


def shown(size_bytes: float) -> str:
    """A size as people read it: 512 bytes, 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} bytes" if unit == "bytes" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"
