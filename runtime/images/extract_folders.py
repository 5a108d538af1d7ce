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
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Descriptor of the folder that holds `path`, made with its own parents if it is not there, and the last component."""
        folder, _, name = path.rpartition(b"/")
        return self.open(folder), name

    def open(self, path: bytes) -> int:
        """Descriptor of a folder; it stays this object's and is valid until the next call."""
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        return self._keep(path, self._walk(path, 0))

    def forget(self) -> None:
        """Close all: something that may be a folder was replaced."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _keep(self, path: bytes, fd: int) -> int:
        self._open[path] = fd
        if len(self._open) > _CACHED:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _walk(self, path: bytes, links: int) -> int:
        """A new descriptor for `path`; missing folders are made, links inside the layer followed."""
        fd = os.dup(self._root)
        parts = path.split(b"/")
        try:
            for count, part in enumerate(parts, 1):
                step = self._step(fd, part)
                if step is None:
                    target = self._link_target(fd, parts[:count], parts[count:], links)
                    step = self._walk(target, links + 1) if target else os.dup(self._root)
                    fd, step = step, fd
                    break
                fd, step = step, fd
                os.close(step)
            else:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(step)
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
        except (NotADirectoryError, OSError) as error:
            mode = os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return None
            if stat.S_ISDIR(mode):
                raise
            raise ImageFault(f"The layer has an entry below {shown_path(part)}, which is no folder.") from error

    @staticmethod
    def _link_target(fd: int, before: list[bytes], after: list[bytes], links: int) -> bytes:
        """Where a link in the middle of a path leads, followed by the rest of the path."""
        link = shown_path(b"/".join(before))
        if links >= _MAX_LINKS:
            raise ImageFault(f"The symbolic link {link} leads through more than {_MAX_LINKS} others.")
        real = _resolve(before[:-1], os.readlink(before[-1], dir_fd=fd))
        if real is None:
            raise ImageFault(
                f"An entry goes through the symbolic link {link}, which leads out of the layer.",
                "It was refused as hostile.",
            )
        return clean(b"/".join(real + after))


def _resolve(folder: list[bytes], target: bytes) -> list[bytes] | None:
    """A link's target as a path of the layer; None when it is absolute or climbs out."""
    if target.startswith(b"/"):
        return None
    real = list(folder)
    for part in target.split(b"/"):
        if part == b".." and not real:
            return None
        if part == b"..":
            real.pop()
        elif part not in (b"", b"."):
            real.append(part)
    return real


def remove(fd: int, name: bytes, depth: int = 0) -> None:
    """Remove an entry and all below it; the layer's own limit of depth holds."""
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
                remove(inside, child, depth + 1)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=fd)
