"""Sparse files in tar: the old GNU header and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Sparse Formats")."""

from __future__ import annotations

from typing import Final

from runtime.images.format_digest import ImageFault
from runtime.images.format_tar_header import TarHeader, decimal, number

MAX_PIECES: Final = 100_000
_GNU_PIECES_IN_HEADER, _GNU_PIECES_IN_BLOCK = 4, 21

type Pieces = list[tuple[int, int]]


def gnu_pieces(block: bytes, *, first: bool) -> tuple[Pieces, bool]:
    """Pieces in the header (`first`) or an extension block, and whether another extension block follows."""
    start, count = (386, _GNU_PIECES_IN_HEADER) if first else (0, _GNU_PIECES_IN_BLOCK)
    more = block[482 if first else 504] not in (0, 0x30)
    pieces: Pieces = []
    for position in range(start, start + count * 24, 24):
        offset, length = block[position : position + 12], block[position + 12 : position + 24]
        if not offset[0] and not length[0]:
            break
        pieces.append((number(offset, "sparse offset"), number(length, "sparse length")))
    return pieces, more


def gnu_real_size(block: bytes) -> int:
    """Size of the whole file in an old GNU sparse header."""
    return number(block[483:495], "size")


def pax_pieces(records: dict[bytes, bytes]) -> Pieces | None:
    """Pieces of formats 0.0 and 0.1, None when the records hold no map."""
    text = records.get(b"GNU.sparse.map")
    if text is None:
        return None
    numbers = [decimal(item, "sparse map") for item in text.split(b",", 2 * MAX_PIECES)] if text else []
    if len(numbers) % 2:
        raise ImageFault("The archive has a sparse map with an odd count of numbers: it is damaged.")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def pax_real_size(records: dict[bytes, bytes]) -> int:
    """Size of the whole file of a PAX sparse entry."""
    return decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"0", "size")


class MapInData:
    """Format 1.0 puts the map before the data: "count\\noffset\\nlength\\n…", padded to a block."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._lines = 0

    def add(self, block: bytes) -> Pieces | None:
        """Take the next block; the map once it is complete."""
        self._text += block
        self._lines += block.count(b"\n")
        if not self._lines:
            raise ImageFault("The archive has a malformed sparse map: it is damaged.")
        count = decimal(bytes(self._text[: self._text.index(b"\n")]), "sparse map")
        if count > MAX_PIECES or len(self._text) > 2 * MAX_PIECES * 20:
            raise ImageFault(f"A sparse file has {count} pieces; {MAX_PIECES} is the limit.")
        if self._lines < 1 + 2 * count:
            return None
        lines = bytes(self._text).split(b"\n", 1 + 2 * count)
        numbers = [decimal(item, "sparse map") for item in lines[1 : 1 + 2 * count]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def set_pieces(header: TarHeader, pieces: Pieces, real_size: int) -> None:
    """Put a checked map into the header: ascending, inside the file, as long as the data that follow."""
    end = 0
    for offset, length in pieces:
        if offset < end or offset + length > real_size:
            raise ImageFault("The archive has a sparse map that overlaps or leaves its file: it is damaged.")
        end = offset + length
    if sum(length for _, length in pieces) != header.size:
        raise ImageFault("The archive has a sparse map that does not match its data: it is damaged.")
    header.sparse, header.real_size = [piece for piece in pieces if piece[1]], real_size
