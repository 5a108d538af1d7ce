"""Walks a container's files and writes them as a tar, all of them or what was changed. Runs in the confined child (see `pack`).

The child's root holds `new`, the container's files (of overlay's upper folder, or all of them), and `old`, its image's. A
container may go on writing: what is gone by now is left out, a file that became shorter is filled up with zeros.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from runtime.images.extract_folders import MAX_DEPTH, shown_path
from runtime.images.extract_layer import kept_xattr
from runtime.images.format_digest import ImageFault
from runtime.images.format_tar_header import Kind, TarHeader
from runtime.images.format_tar_write import END, entry_header, padding

NEW, OLD = b"new", b"old"
# Made in the upper folder as places for mounts; a container that uses one for itself writes something there.
_TARGETS: Final = frozenset(
    {b"dev", b"proc", b"sys", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"sbin/docker-init"}
)
_WHITEOUT = b".wh."
_OPAQUE: Final = "trusted.overlay.opaque"
_INDIRECT: Final = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_SPARSE_BYTES, _MAX_PIECES = 1 << 20, 10_000
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY_BYTES = 1 << 20
_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR_DEVICE, stat.S_IFBLK: Kind.BLOCK_DEVICE,
}  # fmt: skip


class ChangeKind(IntEnum):
    """As `docker diff` counts them."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One path, relative to the container's root; `info` is None for what is gone."""

    kind: ChangeKind
    path: bytes
    info: os.stat_result | None


def join(folder: bytes, name: bytes) -> bytes:
    """A path of bytes: names need not be text. Either part may be empty."""
    return folder + b"/" + name if folder and name else folder or name


def _names(folder: bytes) -> list[bytes]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (names are bytes)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _deep(path: bytes, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ImageFault(f"The folder {shown_path(path)} is more than {MAX_DEPTH} folders deep, the limit.")


def everything(folder: bytes = b"", depth: int = 0) -> Iterator[Change]:
    """All that is in `new`."""
    _deep(folder, depth)
    for name in sorted(_names(join(NEW, folder))):
        path = join(folder, name)
        info = _lstat(join(NEW, path))
        if info is not None:
            yield Change(ChangeKind.ADDED, path, info)
            if stat.S_ISDIR(info.st_mode):
                yield from everything(path, depth + 1)


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_empty(path: bytes, info: os.stat_result) -> bool:
    return not _names(path) if stat.S_ISDIR(info.st_mode) else not info.st_size


def _attributes(path: bytes) -> list[str]:
    with suppress(FileNotFoundError):
        found = os.listxattr(path, follow_symlinks=False)
        if any(name in _INDIRECT for name in found):
            raise ImageFault(
                f"{shown_path(path)} was renamed or changed in a way of overlay's that cannot be committed."
            )
        return found
    return []


def of_upper(folder: bytes = b"", depth: int = 0, *, hidden: bool = False) -> Iterator[Change]:
    """What overlay's upper folder `new` changes of `old`. `hidden`: nothing of the old folder shows through."""
    _deep(folder, depth)
    names = _names(join(NEW, folder))
    gone = set(_names(join(OLD, folder))).difference(names) if hidden else set()
    for name in sorted({*names, *gone}):
        path = join(folder, name)
        info, before = _lstat(join(NEW, path)), _lstat(join(OLD, path))
        if info is None or _is_whiteout(info):
            if before is not None and (name in gone or info is not None):
                yield Change(ChangeKind.DELETED, path, None)
            continue
        if before is None and path in _TARGETS and _is_empty(join(NEW, path), info):
            continue
        attributes = _attributes(join(NEW, path)) if not stat.S_ISLNK(info.st_mode) else []
        yield Change(ChangeKind.ADDED if before is None else ChangeKind.MODIFIED, path, info)
        if stat.S_ISDIR(info.st_mode):
            yield from of_upper(path, depth + 1, hidden=hidden or _OPAQUE in attributes)


def of_trees(folder: bytes = b"", depth: int = 0) -> Iterator[Change]:
    """What two whole trees differ in: kind, owner, mode, size or time of a path."""
    _deep(folder, depth)
    for name in sorted({*_names(join(NEW, folder)), *_names(join(OLD, folder))}):
        path = join(folder, name)
        info, before = _lstat(join(NEW, path)), _lstat(join(OLD, path))
        if info is None:
            if before is not None:
                yield Change(ChangeKind.DELETED, path, None)
            continue
        inside = list(of_trees(path, depth + 1)) if stat.S_ISDIR(info.st_mode) else []
        if before is None or inside or not _same(info, before):
            yield Change(ChangeKind.ADDED if before is None else ChangeKind.MODIFIED, path, info)
        yield from inside


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    fields = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_rdev")
    size = one.st_size == other.st_size or stat.S_ISDIR(one.st_mode)
    return size and all(getattr(one, name) == getattr(other, name) for name in fields)


def changes(*, overlay: bool) -> Iterator[Change]:
    """What the container changed."""
    return of_upper() if overlay else of_trees()


class TreeWriter:
    """Writes changes as a tar, by `write`."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._first: dict[tuple[int, int], bytes] = {}  # the first name of a file that has several

    def write(self, found: Iterator[Change]) -> None:
        """The whole tar."""
        for change in found:
            if change.info is None:
                folder, _, name = change.path.rpartition(b"/")
                self._write(entry_header(TarHeader(join(folder, _WHITEOUT + name), Kind.FILE, 0, 0, 0, 0, 0)))
            elif not stat.S_ISSOCK(change.info.st_mode):
                self._entry(change.path, change.info)
        self._write(END)

    def _entry(self, path: bytes, info: os.stat_result) -> None:
        """Times are whole seconds, as Docker's: the rest would cost each file a kilobyte."""
        header = TarHeader(
            path, Kind.FILE, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, 0, info.st_mtime_ns // 10**9 * 10**9
        )
        if stat.S_ISREG(info.st_mode):
            self._regular(header, info)
            return
        header.kind = _KINDS[stat.S_IFMT(info.st_mode)]
        if header.kind is Kind.DIRECTORY:
            header.name += b"/"
            self._add_xattrs(header, path)
        elif header.kind is Kind.SYMLINK:
            header.link_name = os.readlink(join(NEW, path))  # noqa: PTH115  (a name of bytes)
        else:
            header.device = (os.major(info.st_rdev), os.minor(info.st_rdev))
        self._write(entry_header(header))

    def _regular(self, header: TarHeader, info: os.stat_result) -> None:
        path = header.name
        if info.st_nlink > 1:
            first = self._first.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                header.kind, header.link_name = Kind.HARD_LINK, first
                self._write(entry_header(header))
                return
        try:
            fd = os.open(join(NEW, path), _OPEN_FILE)
        except FileNotFoundError:  # meanwhile
            self._first.pop((info.st_dev, info.st_ino), None)
            return
        try:
            self._add_xattrs(header, path)
            self._content(fd, header, os.fstat(fd))
        finally:
            os.close(fd)

    @staticmethod
    def _add_xattrs(header: TarHeader, path: bytes) -> None:
        with suppress(FileNotFoundError):
            for name in os.listxattr(join(NEW, path), follow_symlinks=False):
                if kept_xattr(name):
                    header.xattrs[name] = os.getxattr(join(NEW, path), name, follow_symlinks=False)

    def _content(self, fd: int, header: TarHeader, info: os.stat_result) -> None:
        pieces = [(0, info.st_size)]
        if info.st_size >= _SPARSE_BYTES and info.st_blocks * 512 < info.st_size:
            pieces = _data_pieces(fd, info.st_size)
        if pieces != [(0, info.st_size)]:
            header.sparse, header.real_size = pieces, info.st_size
        header.size = sum(length for _, length in pieces)
        self._write(entry_header(header))
        for offset, length in pieces:
            self._copy(fd, offset, length)
        self._write(padding(header.size))

    def _copy(self, fd: int, start: int, length: int) -> None:
        while length:
            wanted = min(length, _COPY_BYTES)
            data = os.pread(fd, wanted, start) or bytes(wanted)
            self._write(data)
            start, length = start + len(data), length - len(data)


def _data_pieces(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a sparse file has data; all of it when the file system cannot say or there are too many pieces."""
    pieces: list[tuple[int, int]] = []
    end = 0
    while end < size and len(pieces) < _MAX_PIECES:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return pieces
            break
        if start >= size:
            return pieces
        pieces.append((start, end - start))
    return pieces if end >= size else [(0, size)]
