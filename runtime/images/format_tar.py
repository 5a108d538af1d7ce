"""A streaming tar reader: bytes are fed in as they arrive, entries and their data come out at a visitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtime.images import format_tar_sparse as sparse
from runtime.images.format_digest import ImageFault, shown
from runtime.images.format_tar_header import (
    BLOCK,
    ZERO_BLOCK,
    Kind,
    TarHeader,
    apply_pax,
    parse_block,
    parse_pax,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarLimits:
    """What one archive may hold; anything above is refused."""

    entries: int = 1_000_000
    file_bytes: int = 1 << 40
    meta_bytes: int = 1 << 20  # of one extended header, or all of one entry's together


class TarVisitor(Protocol):
    """Receives the entries in their order."""

    def entry(self, header: TarHeader) -> None:
        """An entry begins; its `size` bytes follow as `data`."""

    def data(self, chunk: memoryview) -> None:
        """The next bytes of the entry; valid during the call."""

    def end(self) -> None:
        """The entry is complete."""


class TarReader:
    """Feed it an archive piece by piece. Raises ImageFault at the first byte that is wrong.

    `raw` gets, in their order, all bytes that the visitor does not: headers, padding, what follows the end.
    """

    def __init__(
        self,
        visitor: TarVisitor,
        limits: TarLimits | None = None,
        *,
        raw: Callable[[bytes | memoryview], None] | None = None,
    ) -> None:
        self._visitor = visitor
        self._raw = raw or self._ignore
        self._limits = limits or TarLimits()
        self._stash = bytearray()  # an incomplete block
        self._remaining = 0  # of the current entry's data
        self._padding = 0
        self._take: Callable[[memoryview], None] = self._ignore
        self._done: Callable[[], None] = self._nothing
        self._block: Callable[[bytes], None] = self._header
        self._meta = bytearray()
        self._meta_total = 0
        self._pax: dict[bytes, bytes] = {}
        self._long_name = self._long_link = b""
        self._pending: TarHeader | None = None  # a sparse entry whose map is still being read
        self._pieces: sparse.Pieces = []
        self._map = sparse.MapInData()
        self.entries = 0
        self.finished = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the archive."""
        view = memoryview(data)
        position, length = 0, len(view)
        while position < length and not self.finished:
            if self._remaining:
                count = min(self._remaining, length - position)
                self._take(view[position : position + count])
                position += count
                self._remaining -= count
                if not self._remaining:
                    self._done()
            elif self._padding:
                count = min(self._padding, length - position)
                self._raw(view[position : position + count])
                position += count
                self._padding -= count
            elif not self._stash and length - position >= BLOCK:
                self._take_block(bytes(view[position : position + BLOCK]))
                position += BLOCK
            else:
                count = min(BLOCK - len(self._stash), length - position)
                self._stash += view[position : position + count]
                position += count
                if len(self._stash) == BLOCK:
                    block = bytes(self._stash)
                    self._stash.clear()
                    self._take_block(block)
        if position < length:
            self._raw(view[position:])

    def _take_block(self, block: bytes) -> None:
        self._raw(block)
        self._block(block)

    def close(self) -> None:
        """The archive has ended; raises ImageFault when it ended too early."""
        open_entry = self._pax or self._long_name or self._long_link or self._pending
        if self._remaining or self._stash or open_entry:
            raise ImageFault("The archive ends in the middle of an entry: it is cut off.", "Send it again.")
        if not self.entries and not self.finished:
            raise ImageFault("The archive is empty.", "Save the image again.")

    def _header(self, block: bytes) -> None:
        if block == ZERO_BLOCK:
            self._block = self._second_zero
            return
        header = parse_block(block)
        if header.kind in {Kind.PAX, Kind.PAX_GLOBAL, Kind.GNU_NAME, Kind.GNU_LINK}:
            self._begin_meta(header)
            return
        self.entries += 1
        if self.entries > self._limits.entries:
            raise ImageFault(f"The archive has more than {self._limits.entries} entries, which is the limit.")
        self._complete(header, block)

    def _second_zero(self, block: bytes) -> None:
        if block != ZERO_BLOCK:
            raise ImageFault("The archive has data after a zero block: it is damaged.")
        self.finished = True

    def _begin_meta(self, header: TarHeader) -> None:
        self._meta_total += header.size + BLOCK
        if self._meta_total > self._limits.meta_bytes:
            raise ImageFault(f"The headers of one entry are longer than {shown(self._limits.meta_bytes)}, the limit.")
        self._meta.clear()
        kind = header.kind
        self._body(header.size, self._add_meta, lambda: self._end_meta(kind))

    def _add_meta(self, chunk: memoryview) -> None:
        self._raw(chunk)
        self._meta += chunk

    def _end_meta(self, kind: Kind) -> None:
        data = bytes(self._meta)
        if kind is Kind.PAX:
            self._pax = parse_pax(data)
        elif kind is Kind.GNU_NAME:
            self._long_name = data.partition(b"\0")[0]
        elif kind is Kind.GNU_LINK:
            self._long_link = data.partition(b"\0")[0]

    def _complete(self, header: TarHeader, block: bytes) -> None:
        """Join an entry's header with the long names and extended headers that came before it."""
        records, self._pax, self._meta_total = self._pax, {}, 0
        if header.link_name and self._long_link:
            header.link_name = self._long_link
        header.name = self._long_name or header.name
        self._long_name = self._long_link = b""
        apply_pax(header, records)
        if header.kind is Kind.GNU_SPARSE:
            self._begin_gnu_sparse(header, block)
        elif records.get(b"GNU.sparse.major") == b"1":
            self._begin_map_in_data(header, sparse.pax_real_size(records))
        else:
            pieces = sparse.pax_pieces(records)
            if pieces is not None:
                sparse.set_pieces(header, pieces, sparse.pax_real_size(records))
            self._begin_entry(header)

    def _begin_gnu_sparse(self, header: TarHeader, block: bytes) -> None:
        header.kind, header.real_size = Kind.FILE, sparse.gnu_real_size(block)
        self._pending = header
        self._pieces, more = sparse.gnu_pieces(block, first=True)
        self._block = self._extension if more else self._block
        if not more:
            self._end_gnu_sparse()

    def _extension(self, block: bytes) -> None:
        pieces, more = sparse.gnu_pieces(block, first=False)
        self._pieces += pieces
        if len(self._pieces) > sparse.MAX_PIECES:
            raise ImageFault(f"A sparse file has more than {sparse.MAX_PIECES} pieces, which is the limit.")
        if not more:
            self._block = self._header
            self._end_gnu_sparse()

    def _end_gnu_sparse(self) -> None:
        header = self._pending
        assert header is not None
        self._pending = None
        sparse.set_pieces(header, self._pieces, header.real_size)
        self._begin_entry(header)

    def _begin_map_in_data(self, header: TarHeader, real_size: int) -> None:
        header.real_size = real_size
        self._pending, self._map = header, sparse.MapInData()
        self._block = self._map_block

    def _map_block(self, block: bytes) -> None:
        header = self._pending
        assert header is not None
        header.size -= BLOCK
        if header.size < 0:
            raise ImageFault("The archive has a sparse map longer than its file: it is damaged.")
        pieces = self._map.add(block)
        if pieces is not None:
            self._pending = None
            self._block = self._header
            sparse.set_pieces(header, pieces, header.real_size)
            self._begin_entry(header)

    def _begin_entry(self, header: TarHeader) -> None:
        if max(header.size, header.real_size) > self._limits.file_bytes:
            size = max(header.size, header.real_size)
            raise ImageFault(f"A file is {shown(size)} long; {shown(self._limits.file_bytes)} is the limit.")
        self._visitor.entry(header)
        self._body(header.size, self._visitor.data, self._visitor.end)

    def _body(self, size: int, take: Callable[[memoryview], None], done: Callable[[], None]) -> None:
        self._remaining, self._padding = size, -size % BLOCK
        self._take, self._done = take, done
        if not size:
            done()

    @staticmethod
    def _ignore(chunk: bytes | memoryview) -> None:
        """Data of no entry, and what nobody wants."""

    @staticmethod
    def _nothing() -> None:
        """The end of no entry."""
