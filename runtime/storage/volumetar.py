"""A folder as a tar stream, cut into chunks so that an unchanged part of it is the same chunk again.

Pax format, names sorted, times to the nanosecond, so that the same content is the same bytes. A cut depends on what is there
and not on how far the stream is: before some names (a sixty-fourth of them), around each large file, and every MiB within one.
So a changed file changes its own chunks alone. Joined, the chunks are the tar.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator

CHUNK_BYTES = 1 << 20
_ONE_IN = 64
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

type Sink = Callable[[bytes], None]


class Cutter:
    """Collects bytes and hands chunks to a sink, each at most CHUNK_BYTES long."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held = bytearray()

    def member(self, name: bytes, header: bytes) -> None:
        """A member begins."""
        if zlib.crc32(name) % _ONE_IN == 0:
            self.cut()
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        """More bytes, cut where a chunk is full."""
        view = memoryview(data)
        while view:
            room = CHUNK_BYTES - len(self._held)
            self._held += view[:room]
            view = view[room:]
            if len(self._held) == CHUNK_BYTES:
                self.cut()

    def cut(self) -> None:
        """End the chunk here."""
        if self._held:
            self._sink(bytes(self._held))
            self._held.clear()


class TreeTar:
    """Writes everything below a folder. Devices and sockets are left out; nothing outside is reached by a link."""

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._linked: dict[tuple[int, int], bytes] = {}

    def write(self, top: int) -> None:
        """All of the folder `top` (a descriptor), itself as "./", then the end of the archive."""
        self._member(b".", os.fstat(top), _attributes(top), tarfile.DIRTYPE)
        self._folder(top, b"./")
        self._cutter.cut()
        self._cutter.write(bytes(1024))
        self._cutter.cut()

    def _folder(self, folder: int, path: bytes) -> None:
        for name in sorted(os.fsencode(entry) for entry in _names(folder)):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            with contextlib.suppress(FileNotFoundError):
                self._entry(folder, name, path + name, found)

    def _entry(self, folder: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            below = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
            try:
                self._member(path, found, _attributes(below), tarfile.DIRTYPE)
                self._folder(below, path + b"/")
            finally:
                os.close(below)
        elif stat.S_ISREG(found.st_mode):
            self._file(folder, name, path, found)
        elif stat.S_ISLNK(found.st_mode):
            self._member(path, found, {}, tarfile.SYMTYPE, link=os.readlink(name, dir_fd=folder))
        elif stat.S_ISFIFO(found.st_mode):
            self._member(path, found, {}, tarfile.FIFOTYPE)

    def _file(self, folder: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._linked:
            self._member(path, found, {}, tarfile.LNKTYPE, link=self._linked[key])
            return
        self._linked[key] = path
        fd = os.open(name, _FLAGS | os.O_NONBLOCK, dir_fd=folder)
        try:
            pieces = list(_data_of(fd, found.st_size))
            told = b""
            headers = _attributes(fd)
            if pieces != [(0, found.st_size)] and found.st_size:
                told = _sparse_map(pieces)
                headers |= _sparse_headers(path, found.st_size)
            size = len(told) + sum(length for _, length in pieces)
            self._member(path, found, headers, tarfile.REGTYPE, size=size)
            if size > CHUNK_BYTES:
                self._cutter.cut()
            self._cutter.write(told)
            for start, length in pieces:
                self._content(fd, start, length)
            self._cutter.write(bytes(-size % 512))
            if size > CHUNK_BYTES:
                self._cutter.cut()
        finally:
            os.close(fd)

    def _content(self, fd: int, start: int, length: int) -> None:
        """Just `length` bytes: a file that became shorter is filled up with zeros."""
        while length:
            piece = os.pread(fd, min(length, CHUNK_BYTES), start) or bytes(min(length, CHUNK_BYTES))
            self._cutter.write(piece)
            start, length = start + len(piece), length - len(piece)

    def _member(
        self, path: bytes, found: os.stat_result, headers: dict[str, str], kind: bytes, *, link: bytes | str = b"", size: int = 0
    ) -> None:  # fmt: skip
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape") + ("/" if kind == tarfile.DIRTYPE else ""))
        info.type, info.size, info.mode = kind, size, stat.S_IMODE(found.st_mode)
        info.uid, info.gid, info.mtime = found.st_uid, found.st_gid, found.st_mtime_ns // 10**9
        info.linkname = os.fsdecode(link)
        info.pax_headers = headers | {"mtime": f"{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09d}"}
        self._cutter.member(path, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as listing:
        return [entry.name for entry in listing]


def _attributes(fd: int) -> dict[str, str]:
    """Extended attributes as pax headers, as star and GNU tar write them."""
    found = {}
    for name in os.listxattr(fd):
        if name.startswith(_XATTRS):
            found[f"SCHILY.xattr.{name}"] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
    return found


def _data_of(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: (offset, length); holes are left out."""
    start = 0
    while start < size:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if end <= start:
            return
        yield start, end - start
        start = end


def _sparse_map(pieces: list[tuple[int, int]]) -> bytes:
    """GNU's sparse format 1.0: the map comes before the data."""
    text = "".join(f"{number}\n" for number in (len(pieces), *(n for piece in pieces for n in piece))).encode()
    return text + bytes(-len(text) % 512)


def _sparse_headers(path: bytes, size: int) -> dict[str, str]:
    name = path.decode("utf-8", "surrogateescape")
    return {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
