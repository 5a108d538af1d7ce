"""Folders of a layer while it is unpacked: every path is walked by descriptor, one component at a time.

The process is the only one that writes there and is chrooted into it (see `extract`), so this is the second lock: a symbolic
link of the layer is followed only when it stays inside, and never one that is absolute or climbs out.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from runtime.images.format_digest import ImageFault

MAX_PATH_BYTES: Final = 4095
MAX_DEPTH: Final = 256
MAX_NAME_BYTES: Final = 255
_MAX_LINKS = 40
_CACHED = 64
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def shown_path(path: bytes) -> str:
    """A path for a sentence."""
    return repr(path[:200].decode("utf-8", "backslashreplace"))


def clean(path: bytes, what: str = "entry") -> bytes:
    """A path of the archive relative to the layer's root, b"" for the root; raises ImageFault when it climbs or is too long."""
    if len(path) > MAX_PATH_BYTES:
        raise ImageFault(f"A path of the layer is {len(path)} bytes long; {MAX_PATH_BYTES} is the limit.")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageFault(f"The {what} {shown_path(path)} leads out of the layer.", "It was refused as hostile.")
    if len(parts) > MAX_DEPTH:
        raise ImageFault(f"A path of the layer is {len(parts)} folders deep; {MAX_DEPTH} is the limit.")
    if any(len(part) > MAX_NAME_BYTES for part in parts):
        raise ImageFault(f"A name of the layer is longer than {MAX_NAME_BYTES} bytes, the limit.")
    return b"/".join(parts)


class Folders:
    """Open folders below `root`, the most recently used kept open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Descriptor of the folder that holds `path`, made with its own parents if it is not there, and the last component."""
        folder, _, name = path.rpartition(b"/")
        return self.open(folder), name

    def open(self, path: bytes) -> int:
        """Descriptor of a folder; it stays this object's and is valid until the next call."""
        if not path:
            return self._root
        return self._opened(path)[0]

    def real(self, path: bytes) -> bytes:
        """The path of an entry with no symbolic link on the way to it."""
        folder, _, name = path.rpartition(b"/")
        real = self._opened(folder)[1] if folder else b""
        return real + b"/" + name if real else name

    def forget(self) -> None:
        """Close all: something that may be a folder was replaced."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def _opened(self, path: bytes) -> tuple[int, bytes]:
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        found = self._open[path] = self._walk(path)
        if len(self._open) > _CACHED:
            os.close(self._open.popitem(last=False)[1][0])
        return found

    def _walk(self, path: bytes) -> tuple[int, bytes]:
        """A new descriptor for `path` and where it really is; missing folders are made, links that stay inside followed."""
        todo, done = path.split(b"/")[::-1], list[bytes]()
        links = 0
        fd = os.dup(self._root)
        try:
            while todo:
                part = todo.pop()
                if part == b"..":  # of a link: names of the archive have none
                    if not done:
                        raise _escape(path)
                    done.pop()
                    fd = self._swap(fd, self._reopen(done))
                elif (step := self._step(fd, part)) is not None:
                    done.append(part)
                    fd = self._swap(fd, step)
                else:
                    links += 1
                    todo += _parts_of_link(fd, part, path)[::-1]
                if links > _MAX_LINKS or len(done) > MAX_DEPTH:
                    raise ImageFault(f"The path {shown_path(path)} leads through more than {_MAX_LINKS} links.")
        except BaseException:
            os.close(fd)
            raise
        return fd, b"/".join(done)

    @staticmethod
    def _swap(old: int, new: int) -> int:
        os.close(old)
        return new

    def _reopen(self, parts: list[bytes]) -> int:
        """A new descriptor for a path that is known to have no link in it."""
        fd = os.dup(self._root)
        for part in parts:
            fd = self._swap(fd, os.open(part, _OPEN_FOLDER, dir_fd=fd))
        return fd

    @staticmethod
    def _step(fd: int, part: bytes) -> int | None:
        """Open one component, made when missing; None when it is a symbolic link."""
        try:
            return os.open(part, _OPEN_FOLDER, dir_fd=fd)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=fd)
            os.chown(part, 0, 0, dir_fd=fd, follow_symlinks=False)
            return os.open(part, _OPEN_FOLDER, dir_fd=fd)
        except OSError as error:  # ELOOP or ENOTDIR
            mode = os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return None
            if stat.S_ISDIR(mode):
                raise
            raise ImageFault(f"The layer has an entry below {shown_path(part)}, which is no folder.") from error


def _escape(path: bytes) -> ImageFault:
    return ImageFault(
        f"The path {shown_path(path)} goes through a symbolic link that leads out of the layer.",
        "It was refused as hostile.",
    )


def _parts_of_link(fd: int, name: bytes, path: bytes) -> list[bytes]:
    """Components of a link's target; raises ImageFault for an absolute one."""
    target = os.readlink(name, dir_fd=fd)
    if target.startswith(b"/"):
        raise _escape(path)
    return [part for part in target.split(b"/") if part not in (b"", b".")]


def remove(fd: int, name: bytes) -> None:
    """Remove an entry and all below it; the layer's own limit bounds the depth."""
    try:
        os.unlink(name, dir_fd=fd)
        return
    except IsADirectoryError:
        pass
    inside = os.open(name, _OPEN_FOLDER, dir_fd=fd)
    try:
        with os.scandir(inside) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for child in names:
            with suppress(FileNotFoundError):
                remove(inside, child)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=fd)
