"""An image archive without the blobs that are known: which of its bytes are sent. Reads tar headers and small documents only.

OCI-style archives name their blobs by digest. In old ones the image's config says the digest of each layer, and a layer that
is left out becomes a link to the blob's name: the portal finds it among what the team has.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

LEAST_BYTES = 64 << 10  # smaller members are always sent; documents are among them
DOCUMENT_BYTES = 8 << 20
ASKED_AT_MOST = 1000
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to send: of the file from `begin` on, or `data`."""

    begin: int
    size: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Payload:
    """What is sent of a file. `spared_bytes` are known to the portal and left out."""

    file: BinaryIO
    pieces: tuple[Piece, ...]
    spared_bytes: int

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(piece.size for piece in self.pieces)

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes of what is sent, from `offset` on; fewer at the end."""
        found = bytearray()
        for piece in self.pieces:
            if offset < piece.size and count > len(found):
                more = min(piece.size - offset, count - len(found))
                found += piece.data[offset : offset + more] if piece.data else self._of_file(piece.begin + offset, more)
            offset = max(0, offset - piece.size)
        return bytes(found)

    def _of_file(self, begin: int, count: int) -> bytes:
        self.file.seek(begin)
        return self.file.read(count)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member with its extension headers: the bytes `start` to `end`, its content from `begin` on."""

    name: str
    start: int
    begin: int
    size: int
    end: int


def without_known(file: BinaryIO, known: Callable[[Collection[str]], Collection[str]]) -> Payload:
    """The archive without the blobs whose digests `known` answers; all of it where nothing can be left out."""
    size = file.seek(0, os.SEEK_END)
    whole = Payload(file, (Piece(0, size),), 0)
    try:
        members = list(_members(file))
    except (tarfile.TarError, OSError, ValueError):
        return whole  # compressed, or no archive at all: the portal says which
    named = _named_by_digest(members) | _old_layers(file, members)
    digests = sorted(set(named.values()))[:ASKED_AT_MOST]
    here = set(known(digests)) if digests else set()
    left = [member for member in members if named.get(member.start) in here]
    if not left:
        return whole
    pieces, at = list[Piece](), 0
    for member in left:
        pieces.append(Piece(at, member.start - at))
        if not _BLOB.fullmatch(member.name):
            link = _link(member.name, named[member.start])
            pieces.append(Piece(0, len(link), link))
        at = member.end
    pieces.append(Piece(at, size - at))
    return Payload(file, tuple(piece for piece in pieces if piece.size), sum(member.size for member in left))


def _members(file: BinaryIO) -> Iterator[_Member]:
    """Files of a plain tar in order."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            end = tar.offset
            if info.isreg() and not info.issparse():
                yield _Member(posixpath.normpath(info.name), info.offset, info.offset_data, info.size, end)


def _named_by_digest(members: list[_Member]) -> dict[int, str]:
    found = {}
    for member in members:
        match = _BLOB.fullmatch(member.name)
        if match and member.size >= LEAST_BYTES:
            found[member.start] = f"sha256:{match[1]}"
    return found


def _old_layers(file: BinaryIO, members: list[_Member]) -> dict[int, str]:
    """Layers of an archive from before Docker 25: plain tars, whose digests are the diff ids of the config."""
    named, found = {member.name: member for member in members}, dict[int, str]()
    for image in _document(file, named.get("manifest.json")) or ():
        layers = image.get("Layers") or ()
        config = _document(file, named.get(posixpath.normpath(str(image.get("Config"))))) or {}
        diff_ids = (config.get("rootfs") or {}).get("diff_ids") or ()
        if len(layers) != len(diff_ids):
            continue
        for name, digest in zip(layers, diff_ids, strict=True):
            member = named.get(posixpath.normpath(str(name)))
            if member is not None and _may_be_linked(member) and _is_tar(file, member) and _DIGEST.fullmatch(digest):
                found[member.start] = digest
    return found


def _may_be_linked(member: _Member) -> bool:
    return member.size >= LEAST_BYTES and len(member.name) < 100 and not member.name.startswith("blobs/")


def _is_tar(file: BinaryIO, member: _Member) -> bool:
    file.seek(member.begin + 257)
    return file.read(5) == b"ustar"


def _document(file: BinaryIO, member: _Member | None) -> Any:
    if member is None or member.size > DOCUMENT_BYTES:
        return None
    file.seek(member.begin)
    try:
        return json.loads(file.read(member.size))
    except ValueError:
        return None


def _link(name: str, digest: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = tarfile.SYMTYPE
    info.linkname = posixpath.relpath(f"blobs/{digest.replace(':', '/')}", posixpath.dirname(name) or ".")
    return info.tobuf(tarfile.USTAR_FORMAT)


def seekable(stream: BinaryIO, spool: BinaryIO) -> BinaryIO:
    """A pipe's content in `spool`, which must be a file: its end is where the archive says what it is."""
    while data := stream.read(1 << 20):
        spool.write(data)
    spool.seek(0, io.SEEK_SET)
    return spool
