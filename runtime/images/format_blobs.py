"""Where the blobs of an archive go while it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """A member of the archive that was read to its end. `kind` is what `sniff` says of its first bytes."""

    name: str
    digest: str
    size: int
    kind: str


class BlobWriter(Protocol):
    """Takes the content of one blob."""

    def write(self, data: memoryview) -> None:
        """The next bytes; valid during the call."""

    def finish(self, blob: StoredBlob) -> None:
        """All bytes came and the digest is what the archive said."""


class BlobSink(Protocol):
    """Where the blobs of an archive go. On a fault the caller throws away what it has; nothing is called any more."""

    def open(self, name: str, size: int, kind: str) -> BlobWriter | None:
        """A blob begins; None when its bytes are not wanted. JSON documents are kept by the reader as well."""
