"""Tar headers: ustar, GNU and PAX (POSIX.1-2017 pax, "Basic Tar Format" of GNU tar). Pure functions of bytes.

`tarfile` is not used: it drops what layers need (setuid, xattrs) and follows what they must not do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from runtime.images.format_digest import ImageFault

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)
MAX_XATTR_BYTES: Final = 64 << 10  # XATTR_SIZE_MAX
_MAX_NUMBER: Final = (1 << 63) - 1
_MAX_SECONDS: Final = 10**12 - 1
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_SPACES = b" " * 8
_XATTR_PREFIX = b"SCHILY.xattr."


class Kind(Enum):
    """What an entry is; the values are the type flags of the header."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHAR_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"
    PAX = b"x"
    PAX_GLOBAL = b"g"
    GNU_NAME = b"L"
    GNU_LINK = b"K"
    GNU_SPARSE = b"S"


_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}
HEADER_ONLY: Final = frozenset(
    {Kind.HARD_LINK, Kind.SYMLINK, Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE, Kind.DIRECTORY, Kind.FIFO}
)


@dataclass(slots=True)
class TarHeader:
    """One entry. Names are bytes as stored (any encoding); `size` counts the bytes that follow in the archive.

    `sparse` is None for a plain file, else the (offset, length) pieces whose data follow one after another, `real_size` then
    the size of the whole file.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link_name: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None
    real_size: int = 0


def number(data: bytes, what: str) -> int:
    """A header's number: octal digits with blanks around, or base-256 when the first bit is set. Negative ones are refused."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ((1 << (len(data) * 8 - 1)) - 1)
        if data[0] & 0x40 or value > _MAX_NUMBER:
            raise ImageFault(f"The archive has a {what} that is negative or above 2^63.")
        return value
    text = data.strip(b" \0")
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise ImageFault(f"The archive has {text!r} where an octal {what} belongs: it is damaged.") from None


def _checked(block: bytes) -> None:
    stored = number(block[148:156], "checksum")
    plain = sum(block) - sum(block[148:156]) + sum(_SPACES)
    if plain == stored:
        return
    signed = plain - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    if signed != stored:
        raise ImageFault("The archive has a header whose checksum is wrong: it is damaged or no tar archive.")


def parse_block(block: bytes) -> TarHeader:
    """Read one 512-byte header; raises ImageFault when its checksum, a number or its type is wrong."""
    _checked(block)
    (name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, _, major, minor, prefix) = _HEADER.unpack(block)
    kind = _KINDS.get(flag)
    if kind is None:
        raise ImageFault(f"The archive has an entry of the unknown type {flag!r}.", "Save the image again.")
    name = name.partition(b"\0")[0]
    if magic == b"ustar\0" and (front := prefix.partition(b"\0")[0]):
        name = front + b"/" + name
    if kind is Kind.FILE and name.endswith(b"/"):
        kind = Kind.DIRECTORY
    header = TarHeader(
        name=name,
        kind=kind,
        mode=number(mode, "mode") & 0o7777,
        uid=number(uid, "user id"),
        gid=number(gid, "group id"),
        size=0 if kind in HEADER_ONLY else number(size, "size"),
        mtime_ns=min(number(mtime, "time"), _MAX_SECONDS) * 10**9,
        link_name=link.partition(b"\0")[0],
    )
    if kind in {Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE}:
        header.device = (number(major, "device number"), number(minor, "device number"))
    return header


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records of an extended header ("LENGTH KEY=VALUE\\n"); raises ImageFault when one is malformed."""
    records: dict[bytes, bytes] = {}
    sparse_map: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        end = position + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1 : max(end - 1, 0)].partition(b"=")
        if not space < end - 1 < len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise ImageFault("The archive has a malformed extended header: it is damaged.")
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:  # format 0.0 repeats them
            sparse_map.append(value)
        records[key] = value
        position = end
    if sparse_map:
        records[b"GNU.sparse.map"] = b",".join(sparse_map)
    return records


def decimal(value: bytes, what: str) -> int:
    """A number of an extended header."""
    if not value.isdigit() or len(value) > 19:
        raise ImageFault(f"The archive has {value[:40]!r} where a decimal {what} belongs: it is damaged.")
    return int(value)


def _time_ns(value: bytes) -> int:
    whole, _, part = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 12 or (part and not part.isdigit()):
        raise ImageFault(f"The archive has {value[:40]!r} where a time belongs: it is damaged.")
    nanoseconds = int(whole) * 10**9 + int(part[:9].ljust(9, b"0"))
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def _add_xattr(header: TarHeader, key: bytes, value: bytes) -> None:
    if len(value) > MAX_XATTR_BYTES:
        raise ImageFault(f"An extended attribute is {len(value)} bytes long; {MAX_XATTR_BYTES} is the limit.")
    header.xattrs[key[len(_XATTR_PREFIX) :].decode("utf-8", "surrogateescape")] = value


def apply_pax(header: TarHeader, records: dict[bytes, bytes]) -> None:
    """Put the records of an extended header into the entry they precede."""
    for key, value in records.items():
        if key.startswith(_XATTR_PREFIX):
            _add_xattr(header, key, value)
    header.name = records.get(b"GNU.sparse.name") or records.get(b"path") or header.name
    header.link_name = records.get(b"linkpath") or header.link_name
    if b"uid" in records:
        header.uid = decimal(records[b"uid"], "user id")
    if b"gid" in records:
        header.gid = decimal(records[b"gid"], "group id")
    if b"mtime" in records:
        header.mtime_ns = _time_ns(records[b"mtime"])
    if b"size" in records and header.kind not in HEADER_ONLY:
        header.size = decimal(records[b"size"], "size")
    _finish(header)


def _finish(header: TarHeader) -> None:
    if header.kind is Kind.FILE and header.name.endswith(b"/"):
        header.kind, header.size = Kind.DIRECTORY, 0
    if b"\0" in header.name or b"\0" in header.link_name:
        raise ImageFault("The archive has a name with a NUL in it.")
