"""A plain tar of a root file system on its way in: the whole stream is one layer, kept as it came."""

from __future__ import annotations

import hashlib
from typing import Final

from runtime.images.format_blobs import BlobSink, BlobWriter, StoredBlob

# What the first entry of a root file system's tar lies in: hier(7), and what `docker export` begins with.
_FOLDERS: Final = frozenset(
    {
        *(
            b".dockerenv",
            b"bin",
            b"boot",
            b"dev",
            b"etc",
            b"home",
            b"lib",
            b"lib32",
            b"lib64",
            b"libx32",
            b"lost+found",
        ),
        *(b"media", b"mnt", b"opt", b"proc", b"root", b"run", b"sbin", b"srv", b"sys", b"tmp", b"usr", b"var"),
    }
)
NAME: Final = "rootfs.tar"


def is_of_rootfs(name: bytes) -> bool | None:
    """Whether a first entry of this name begins a root file system; None for ".", which begins anything."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return parts[0] in _FOLDERS if parts else None


class RootfsIntake:
    """Takes the stream twice: as it came, for the blob, and unpacked, for the diff id. Both digests are there at the end."""

    def __init__(self) -> None:
        self._blob, self._plain = hashlib.sha256(), hashlib.sha256()
        self._waiting = bytearray()
        self._writer: BlobWriter | None = None
        self._opened = False
        self._kind = ""
        self._size = 0

    @property
    def waiting_bytes(self) -> int:
        """What is held in memory."""
        return len(self._waiting)

    def raw(self, data: bytes) -> None:
        """The next bytes as they came; they wait for `pass_on`."""
        self._waiting += data

    def plain(self, data: bytes) -> None:
        """The next bytes of the tar."""
        self._plain.update(data)

    def pass_on(self, sink: BlobSink, compression: str) -> None:
        """It is a root file system: give the sink what came."""
        if not self._opened:
            self._opened, self._kind = True, "tar" if compression == "plain" else compression
            self._writer = sink.open(NAME, 0, self._kind)
        data = bytes(self._waiting)
        self._waiting.clear()
        self._blob.update(data)
        self._size += len(data)
        if self._writer is not None and data:
            self._writer.write(memoryview(data))

    def finish(self) -> None:
        """All came."""
        if self._writer is not None:
            self._writer.finish(self.blob)

    @property
    def blob(self) -> StoredBlob:
        """The layer as it came."""
        return StoredBlob(name=NAME, digest=f"sha256:{self._blob.hexdigest()}", size=self._size, kind=self._kind)

    @property
    def diff_id(self) -> str:
        """The digest of the tar."""
        return f"sha256:{self._plain.hexdigest()}"
