"""How a layer's tar is put together again from its unpacked folder, byte for byte.

While a layer is unpacked everything but the content of its files is noted: headers, padding, what follows the end. A recipe is
16 bytes (magic, length of the tar in bytes) and then one zstd stream of records:

    R length bytes             bytes of the tar as they were
    F path size                the content of that file of the folder
    S path count (offset length)…  the same of a sparse file, piece by piece
    T path offset size         the file that was at `path` until now was replaced: its content lies in the spill file

Paths are relative to the layer's root and go through no symbolic link. The idea is tar-split's (vbatts/tar-split), which
cannot do the last one.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from runtime.images.format_digest import ImageFault

HEAD = struct.Struct("<8sQ")
MAGIC: Final = b"moorage1"
_LENGTH, _TWO = struct.Struct("<Q"), struct.Struct("<QQ")
_FLUSH_BYTES: Final = 1 << 20
_MAX_PATH: Final = 8192
_MAX_PIECES: Final = 100_000
_RAW_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of the tar."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file, in `pieces` (offset, length)."""

    path: bytes
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """Where the content of the file lies that was at `path`."""

    path: bytes
    offset: int
    size: int


type Record = Raw | Content | Replaced


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class RecipeWriter:
    """Notes records; `write` gets the compressed bytes in pieces."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._packer = _zstd().ZstdCompressor(level=1)
        self._raw = bytearray()
        self._plain = bytearray()

    def raw(self, data: bytes | memoryview) -> None:
        """Bytes of the tar as they are."""
        self._raw += data
        if len(self._raw) >= _RAW_BYTES:
            self._end_raw()

    def content(self, path: bytes, size: int, pieces: list[tuple[int, int]] | None) -> None:
        """The content of a file follows, whole or in pieces."""
        if pieces is None:
            self._add(b"F", path, _LENGTH.pack(size))
        else:
            self._add(b"S", path, _LENGTH.pack(len(pieces)) + b"".join(_TWO.pack(*piece) for piece in pieces))

    def replaced(self, path: bytes, offset: int, size: int) -> None:
        """The file at `path` goes; its content is in the spill file."""
        self._add(b"T", path, _TWO.pack(offset, size))

    def close(self) -> None:
        """No more records."""
        self._end_raw()
        self._write(self._packer.compress(bytes(self._plain)) + self._packer.flush())
        self._plain.clear()

    def _add(self, kind: bytes, path: bytes, more: bytes) -> None:
        self._end_raw()
        self._plain += kind + _LENGTH.pack(len(path)) + path + more
        self._flush()

    def _end_raw(self) -> None:
        if self._raw:
            self._plain += b"R" + _LENGTH.pack(len(self._raw)) + self._raw
            self._raw.clear()
            self._flush()

    def _flush(self) -> None:
        if len(self._plain) >= _FLUSH_BYTES:
            self._write(self._packer.compress(bytes(self._plain)))
            self._plain.clear()


class _Source:
    """The plain bytes of a recipe, read as they are wanted."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, HEAD.size
        self._unpacker = _zstd().ZstdDecompressor()
        self._buffer = b""
        self._start = 0

    def take(self, count: int) -> bytes:
        """Exactly so many bytes; b"" at the end. Raises ImageFault when it ends too early."""
        while len(self._buffer) - self._start < count:
            more = self._more()
            if not more:
                if self._start == len(self._buffer):
                    return b""
                raise damaged()
            self._buffer = self._buffer[self._start :] + more
            self._start = 0
        found = self._buffer[self._start : self._start + count]
        self._start += count
        return found

    def number(self) -> int:
        """One length."""
        data = self.take(_LENGTH.size)
        if not data:
            raise damaged()
        found: int = _LENGTH.unpack(data)[0]
        return found

    def path(self) -> bytes:
        """One path."""
        length = self.number()
        if length > _MAX_PATH:
            raise damaged()
        return self.take(length)

    def _more(self) -> bytes:
        found = b""
        while not found and not self._unpacker.eof:
            data = b""
            if self._unpacker.needs_input:
                data = os.pread(self._fd, _FLUSH_BYTES, self._at)
                self._at += len(data)
                if not data:
                    raise damaged()
            try:
                found = self._unpacker.decompress(data, _FLUSH_BYTES)
            except _zstd().ZstdError as error:
                raise damaged() from error
        return found


def damaged() -> ImageFault:
    """A recipe that cannot be read."""
    return ImageFault("The recipe of a layer is damaged.", "Load or pull the image again.")


def tar_bytes(fd: int) -> int:
    """The length of the tar that a recipe makes; raises ImageFault for one that was not finished."""
    head = os.pread(fd, HEAD.size, 0)
    if len(head) != HEAD.size or not head.startswith(MAGIC):
        raise damaged()
    found: int = HEAD.unpack(head)[1]
    return found


def records(fd: int) -> Iterator[Record]:
    """The records of a recipe in their order; raises ImageFault."""
    source = _Source(fd)
    while kind := source.take(1):
        if kind == b"R":
            length = source.number()
            if length > 2 * _RAW_BYTES + 4 * _FLUSH_BYTES:
                raise damaged()
            yield Raw(source.take(length))
            continue
        path = source.path()
        if kind == b"F":
            yield Content(path, ((0, source.number()),))
        elif kind == b"S":
            count = source.number()
            if count > _MAX_PIECES:
                raise damaged()
            yield Content(path, tuple((source.number(), source.number()) for _ in range(count)))
        elif kind == b"T":
            yield Replaced(path, source.number(), source.number())
        else:
            raise damaged()
