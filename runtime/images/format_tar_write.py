"""Tar headers as this project writes them: ustar where everything fits, else a PAX extended header before it. Pure.

What `format_tar` reads back is the same entry; GNU tar, Go's archive/tar and Python's tarfile read it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runtime.images.format_tar_header import BLOCK, HEADER_ONLY, Kind, TarHeader

END: Final = bytes(2 * BLOCK)
_MAX_NAME, _MAX_OCTAL7, _MAX_OCTAL11 = 100, 0o7777777, 0o77777777777


def padding(size: int) -> bytes:
    """The zeros that follow `size` bytes of data."""
    return bytes(-size % BLOCK)


def entry_header(header: TarHeader) -> bytes:
    """The header of an entry. For a sparse file it holds the map as well, and `size` bytes of its pieces are to follow."""
    records: dict[bytes, bytes] = {}
    name, sparse_map = header.name, b""
    size = 0 if header.kind in HEADER_ONLY else header.size
    if header.sparse is not None:
        sparse_map = _sparse_map(header.sparse)
        records |= {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name}
        records[b"GNU.sparse.realsize"] = b"%d" % header.real_size
        size += len(sparse_map)
    elif len(name) > _MAX_NAME:
        records[b"path"] = name
    if len(header.link_name) > _MAX_NAME:
        records[b"linkpath"] = header.link_name
    for key, owner in ((b"uid", header.uid), (b"gid", header.gid)):
        if owner > _MAX_OCTAL7:
            records[key] = b"%d" % owner
    if size > _MAX_OCTAL11:
        records[b"size"] = b"%d" % size
    seconds, nanoseconds = divmod(header.mtime_ns, 10**9)
    if nanoseconds or not 0 <= seconds <= _MAX_OCTAL11:
        records[b"mtime"] = _time(header.mtime_ns)
    for attribute, value in sorted(header.xattrs.items()):
        records[b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape")] = value
    extended = b"".join(_record(key, value) for key, value in records.items())
    before = _block(b"PaxHeaders/x", b"x", len(extended)) + extended + padding(len(extended)) if extended else b""
    return before + _entry_block(header, size, min(max(seconds, 0), _MAX_OCTAL11)) + sparse_map


def _entry_block(header: TarHeader, size: int, seconds: int) -> bytes:
    return _block(
        header.name[:_MAX_NAME],
        header.kind.value,
        min(size, _MAX_OCTAL11),
        mode=header.mode,
        owner=(min(header.uid, _MAX_OCTAL7), min(header.gid, _MAX_OCTAL7)),
        mtime=seconds,
        link=header.link_name[:_MAX_NAME],
        device=header.device if header.kind in {Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE} else None,
    )


def _block(
    name: bytes,
    kind: bytes,
    size: int,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] | None = None,
) -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % owner[0]
    block[116:124] = b"%07o\0" % owner[1]
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % mtime
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    if device is not None:
        block[329:337] = b"%07o\0" % device[0]
        block[337:345] = b"%07o\0" % device[1]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _time(mtime_ns: int) -> bytes:
    whole, part = divmod(abs(mtime_ns), 10**9)
    return b"%s%d.%09d" % (b"-" if mtime_ns < 0 else b"", whole, part)


def _sparse_map(pieces: Sequence[tuple[int, int]]) -> bytes:
    text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    return text + padding(len(text))
