"""Decompression of a stream of unknown kind, piece by piece, with bounds against bombs.

isal, zstd, bzip2 and xz are imported when a stream needs them; all four have the interface of `bz2.BZ2Decompressor`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from runtime.images.format_digest import ImageFault, shown

HEAD_BYTES: Final = 512  # what `sniff` wants to see
_PIECE_BYTES: Final = 1 << 20
_ZSTD_WINDOW_LOG: Final = 27  # 128 MiB, what the zstd command line takes by default
_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))
_MAGIC: Final = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))
_MAGIC_BYTES: Final = 6
COMPRESSIONS: Final = frozenset(kind for _, kind in _MAGIC)


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """A stream that unpacks to more than `max_bytes`, or to more than `ratio` times its size once past `free_bytes`, is refused."""

    max_bytes: int = 1 << 40
    ratio: int = 200
    free_bytes: int = 256 << 20


def sniff(head: bytes) -> str:
    """The kind of a stream by its first bytes: gzip, zstd, bzip2, xz, json, tar or unknown."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(_SKIPPABLE):
        return "zstd"
    if head[257:262] == b"ustar" or (len(head) >= HEAD_BYTES and not any(head[:HEAD_BYTES])):
        return "tar"
    if head.lstrip()[:1] in (b"{", b"["):
        return "json"
    if len(head) >= HEAD_BYTES and head[148:154].strip(b" \0").isdigit() and head[0]:
        return "tar"  # before ustar: only a checksum tells
    return "unknown"


def _decoder(kind: str) -> _Decoder:
    if kind == "gzip":
        from isal import igzip_lib

        decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    elif kind == "zstd":
        decoder = _zstd()
    elif kind == "bzip2":
        import bz2

        decoder = bz2.BZ2Decompressor()
    else:
        import lzma

        decoder = lzma.LZMADecompressor(memlimit=256 << 20)
    return decoder


def _zstd() -> _Decoder:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor(options={int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG})


class Unpacker:
    """Feed it a plain or compressed stream; it yields the plain bytes in pieces of at most 1 MiB.

    `compression` is "" until the first bytes were seen, then plain, gzip, zstd, bzip2 or xz.
    """

    def __init__(self, limits: StreamLimits | None = None) -> None:
        self._limits = limits or StreamLimits()
        self._decoder: _Decoder | None = None
        self._stash = b""
        self.compression = ""
        self.taken_bytes = 0
        self.given_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes. Raises ImageFault when they are damaged or unpack to too much."""
        self.taken_bytes += len(data)
        if self.compression == "plain":
            yield self._counted(data)
        else:
            yield from self._decode(self._stash + data)

    def close(self) -> Iterator[bytes]:
        """The stream has ended; yields what was held back. Raises ImageFault when it ended too early."""
        if not self.compression:
            self.compression = "plain"
            yield self._counted(self._stash)
            return
        if self._decoder is None:
            return
        if not self._decoder.eof:
            yield from self._drain(self._decoder, b"")
        if not self._decoder.eof:
            raise ImageFault(f"The {self.compression} stream is cut off.", "Send it again.")
        if self._stash.strip(b"\0"):
            raise self._trailing()

    def _counted(self, data: bytes) -> bytes:
        self.given_bytes += len(data)
        limits = self._limits
        if self.given_bytes > limits.max_bytes:
            raise ImageFault(f"It unpacks to more than {shown(limits.max_bytes)}, which is the limit.")
        if self.given_bytes > limits.free_bytes and self.given_bytes > self.taken_bytes * limits.ratio:
            raise ImageFault(
                f"It is a bomb: {shown(self.taken_bytes)} unpack to more than {limits.ratio} times that.",
                "Images do not compress so well.",
            )
        return data

    def _decode(self, data: bytes) -> Iterator[bytes]:
        """Run through one or more compressed members; keeps in `_stash` what is too short to tell its kind."""
        self._stash = b""
        while data:
            if self._decoder is None or self._decoder.eof:
                if len(data) < _MAGIC_BYTES:
                    self._stash = data
                    return
                self._decoder = self._begin(data)
            if self._decoder is None:
                if self.compression == "plain":
                    yield self._counted(data)
                return
            if self._decoder.eof:  # only padding is left
                return
            yield from self._drain(self._decoder, data)
            data = self._decoder.unused_data if self._decoder.eof else b""

    def _begin(self, data: bytes) -> _Decoder | None:
        """The decoder for what begins here; None for a plain stream and for the zero bytes some tools pad with."""
        kind = sniff(data[:_MAGIC_BYTES])
        if not self.compression:
            self.compression = kind if kind in COMPRESSIONS else "plain"
            return None if self.compression == "plain" else _decoder(kind)
        if kind == self.compression:
            return _decoder(kind)
        if data.strip(b"\0"):
            raise self._trailing()
        return self._decoder

    def _trailing(self) -> ImageFault:
        return ImageFault(f"The {self.compression} stream is followed by something else.", "Save the image again.")

    def _drain(self, decoder: _Decoder, data: bytes) -> Iterator[bytes]:
        """All that `data` gives."""
        while not decoder.eof:
            try:
                piece = decoder.decompress(data, _PIECE_BYTES)
            except Exception as error:  # each library has an error class of its own
                raise ImageFault(f"The {self.compression} stream is damaged ({error}).", "Send it again.") from error
            data = b""
            if piece:
                yield self._counted(piece)
            if decoder.needs_input or not piece:
                return
