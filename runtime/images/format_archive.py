"""A streaming reader of `docker save` archives (old and OCI style), OCI layout tars and root file systems, for engine and portal.

Feed the bytes as they arrive; every blob goes to a sink while it is hashed, so one pass is enough; `finish` gives the images
with every digest verified. Archives of any compression are known by their first bytes, a root file system by the
names of its first entries.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from typing import Final

from runtime.images.format_blobs import BlobSink, BlobWriter, StoredBlob
from runtime.images.format_digest import MAX_DOCUMENT_BYTES, ImageFault
from runtime.images.format_rootfs import Beginning, RootfsIntake
from runtime.images.format_stream import HEAD_BYTES, StreamLimits, Unpacker, sniff
from runtime.images.format_tar import TarLimits, TarReader
from runtime.images.format_tar_header import Kind, TarHeader

MAX_DOCUMENTS_BYTES: Final = 32 << 20  # all documents of one archive together, they are kept in memory
MAX_MEMBERS: Final = 10_000
MAX_ROOTFS_ENTRIES: Final = 2_000_000
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_NAMED_BY_DIGEST = re.compile(r"([0-9a-f]{64})\.json")  # the configs of old `docker save` archives
_OTHER_ALGORITHM = re.compile(r"blobs/(?!sha256/)[^/]+/.+")
_UNUSED = re.compile(r"(?:.*/)?(?:VERSION|json|repositories)")


class _Member:
    """The member of the archive being read."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.hash = hashlib.sha256()
        self.head = bytearray()
        self.kind = ""
        self.writer: BlobWriter | None = None
        self.document: bytearray | None = None


class ArchiveReader:
    """See the module. `blobs`, `documents`, `links` are by member name; `images` of `format_images` reads them at the end.

    `rootfs` is set for a root file system: it is one layer, passed on to the sink as it came.
    """

    def __init__(self, sink: BlobSink, *, stream_limits: StreamLimits | None = None) -> None:
        self._sink = sink
        self._unpacker = Unpacker(stream_limits)
        self._tar = TarReader(self, TarLimits(entries=MAX_ROOTFS_ENTRIES))
        self._member: _Member | None = None
        self._beginning: Beginning | None = Beginning()  # until it is clear what this is
        self.rootfs: RootfsIntake | None = None
        self._documents_bytes = 0
        self.blobs: dict[str, StoredBlob] = {}
        self.documents: dict[str, bytes] = {}
        self.links: dict[str, str] = {}

    @property
    def taken_bytes(self) -> int:
        """Bytes fed so far."""
        return self._unpacker.taken_bytes

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises ImageFault as soon as something is wrong."""
        self._take(data, self._unpacker.feed(data))

    def finish(self) -> None:
        """The stream has ended; raises ImageFault when it is cut off."""
        self._take(b"", self._unpacker.close())
        if self._beginning is not None:
            self._settle()
        self._tar.close()
        if self.rootfs is not None:
            self.rootfs.finish()

    def _take(self, data: bytes, pieces: Iterator[bytes]) -> None:
        if self._beginning is not None:
            self._beginning.raw += data
        elif self.rootfs is not None:
            self.rootfs.raw(data)
        for piece in pieces:
            if self._beginning is None:
                self._pass(piece)
            elif self._beginning.decides(piece):
                self._settle()
        if self.rootfs is not None:
            self.rootfs.pass_on(self._sink, self._unpacker.compression)

    def _settle(self) -> None:
        """It is clear what this is: read what waited."""
        beginning, self._beginning = self._beginning, None
        assert beginning is not None
        if beginning.is_rootfs:
            self.rootfs = RootfsIntake()
            self.rootfs.raw(bytes(beginning.raw))
        self._pass(bytes(beginning.plain))

    def _pass(self, piece: bytes) -> None:
        if self.rootfs is not None:
            self.rootfs.plain(piece)
        self._tar.feed(piece)

    def entry(self, header: TarHeader) -> None:
        """A member begins (TarVisitor)."""
        if self.rootfs is not None:
            return
        name = _member_name(header.name)
        if self._tar.entries > MAX_MEMBERS:
            raise ImageFault(f"The archive has more than {MAX_MEMBERS} entries, which is the limit.")
        self._member = None
        if header.kind in {Kind.SYMLINK, Kind.HARD_LINK}:
            self._add_link(name, header)
        elif header.kind is Kind.FILE:
            self._begin(name, header)
        elif header.kind is not Kind.DIRECTORY:
            raise ImageFault(f"The archive has {name!r}, which is a {header.kind.name.lower().replace('_', ' ')}.")

    def data(self, chunk: memoryview) -> None:
        """Bytes of the member (TarVisitor)."""
        member = self._member
        if member is None:
            return
        member.hash.update(chunk)
        if member.kind:
            self._write(member, chunk)
            return
        member.head += chunk
        if len(member.head) >= min(HEAD_BYTES, member.size):
            self._open(member)

    def end(self) -> None:
        """The member is complete (TarVisitor)."""
        member, self._member = self._member, None
        if member is None:
            return
        if not member.kind:
            self._open(member)
        digest = f"sha256:{member.hash.hexdigest()}"
        declared = _declared_digest(member.name)
        if declared and declared != digest:
            raise ImageFault(f"{member.name} has the content of {digest}: it is damaged.", "Send the archive again.")
        blob = StoredBlob(name=member.name, digest=digest, size=member.size, kind=member.kind)
        self.blobs[member.name] = blob
        if member.document is not None:
            self.documents[member.name] = bytes(member.document)
        if member.writer is not None:
            member.writer.finish(blob)

    def _begin(self, name: str, header: TarHeader) -> None:
        if header.sparse is not None:
            raise ImageFault(
                f"The archive stores {name!r} as a sparse file.", "Save the image again without tar's --sparse."
            )
        if _OTHER_ALGORITHM.fullmatch(name):
            raise ImageFault(f"The archive has {name!r}.", "Only sha256 digests are accepted.")
        if name in self.blobs:
            raise ImageFault(f"The archive has {name!r} twice.", "Save the image again.")
        self._member = _Member(name, header.size)

    def _open(self, member: _Member) -> None:
        """The first bytes are here: they say whether it is a document, kept in memory, or a layer."""
        member.kind = sniff(bytes(member.head))
        if member.kind == "json" and member.size <= MAX_DOCUMENT_BYTES:
            self._documents_bytes += member.size
            if self._documents_bytes > MAX_DOCUMENTS_BYTES:
                raise ImageFault(
                    f"The documents of the archive are longer than {MAX_DOCUMENTS_BYTES >> 20} MiB together."
                )
            member.document = bytearray()
        if not _UNUSED.fullmatch(member.name):
            member.writer = self._sink.open(member.name, member.size, member.kind)
        self._write(member, memoryview(bytes(member.head)))

    @staticmethod
    def _write(member: _Member, chunk: memoryview) -> None:
        if member.document is not None:
            member.document += chunk
        if member.writer is not None and len(chunk):
            member.writer.write(chunk)

    def _add_link(self, name: str, header: TarHeader) -> None:
        target = header.link_name.decode("utf-8", "surrogateescape")
        if header.kind is Kind.SYMLINK:
            target = posixpath.join(posixpath.dirname(name), target)
        self.links[name] = _member_name(target.encode("utf-8", "surrogateescape"))

    def find(self, name: str) -> StoredBlob | None:
        """The blob a manifest means by `name`, through one link (old archives link equal layers)."""
        clean = posixpath.normpath(name)
        return self.blobs.get(clean) or self.blobs.get(self.links.get(clean, ""))


def _declared_digest(name: str) -> str:
    match = _BLOB.fullmatch(name) or _NAMED_BY_DIGEST.fullmatch(name)
    return f"sha256:{match[1]}" if match else ""


def _member_name(raw: bytes) -> str:
    """A member's name without "./"; raises ImageFault when it leaves the archive."""
    name = posixpath.normpath(raw.decode("utf-8", "surrogateescape"))
    if len(raw) > 4096 or name.startswith(("/", "../")) or name == "..":
        raise ImageFault(
            f"The archive has the name {name[:200]!r}, which leads out of it.", "It was refused as hostile."
        )
    return name
