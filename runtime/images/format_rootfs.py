"""A plain tar of a root file system on its way in: the whole stream is one layer, kept as it came."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from runtime.images.format_blobs import BlobSink, BlobWriter, StoredBlob
from runtime.images.format_tar import TarReader
from runtime.images.format_tar_header import TarHeader

# Folders that only a root file system has (hier(7), and what `docker export` begins with), and what only archives have.
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
_MEMBERS: Final = frozenset({b"blobs", b"index.json", b"manifest.json", b"oci-layout", b"repositories"})
_BY_DIGEST = re.compile(rb"[0-9a-f]{64}(\.json)?")
_MAX_WAITING_BYTES: Final = 4 << 20  # kept in memory until a name tells
NAME: Final = "rootfs.tar"


def is_of_rootfs(name: bytes) -> bool | None:
    """Whether an entry of this name is a root file system's or an archive's; None when it may be of either."""
    top = next((part for part in name.split(b"/") if part not in (b"", b".")), b"")
    if top in _FOLDERS:
        return True
    return False if top in _MEMBERS or _BY_DIGEST.fullmatch(top) else None


class Beginning:
    """What came before it was clear what it is (a `TarVisitor`): `raw` as it came, `plain` unpacked."""

    def __init__(self) -> None:
        self.raw, self.plain = bytearray(), bytearray()
        self.is_rootfs: bool | None = None
        self._tar = TarReader(self)

    def decides(self, piece: bytes) -> bool:
        """Look at the next unpacked bytes; True when it is clear, or too much waits: then it is taken for an archive."""
        self.plain += piece
        self._tar.feed(piece)
        return self.is_rootfs is not None or len(self.plain) + len(self.raw) > _MAX_WAITING_BYTES

    def entry(self, header: TarHeader) -> None:
        """An entry begins."""
        if self.is_rootfs is None:
            self.is_rootfs = is_of_rootfs(header.name)

    def data(self, chunk: memoryview) -> None:
        """Its bytes tell nothing."""

    def end(self) -> None:
        """Nor does its end."""


class RootfsIntake:
    """Takes the stream twice: as it came, for the blob, and unpacked, for the diff id. Both digests are there at the end."""

    def __init__(self) -> None:
        self._blob, self._plain = hashlib.sha256(), hashlib.sha256()
        self._waiting = bytearray()
        self._writer: BlobWriter | None = None
        self._opened = False
        self._kind = ""
        self._size = 0

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
