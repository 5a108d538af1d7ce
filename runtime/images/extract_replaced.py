"""Files that a layer has and replaces itself: their content is kept for the recipe, by which the layer's tar is made again.

Rare (archives that were appended to), so it may cost a copy. Runs in the confined child (see `extract`).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from runtime.images.recipe import RecipeWriter

_COPY_BYTES = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Replacements:
    """Notes what goes. `spill` is the file that their content is appended to."""

    def __init__(self, recipe: RecipeWriter, spill: int) -> None:
        self._recipe, self._spill = recipe, spill
        self._end = 0
        self._links: set[bytes] = set()  # their content is that of the entry they link to

    def linked(self, path: bytes) -> None:
        """A hard link to a file was made at `path`, on which no symbolic link lies."""
        self._links.add(path)

    def goes(self, parent: int, name: bytes, path: bytes, mode: int) -> None:
        """What is at `path`, a file or a folder with all that is in it, is about to be removed."""
        if stat.S_ISREG(mode):
            self._file_goes(parent, name, path)
        elif stat.S_ISDIR(mode):
            self._folder_goes(parent, name, path)

    def _folder_goes(self, parent: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, os.O_DIRECTORY | _OPEN_FILE, dir_fd=parent)
        try:
            with os.scandir(fd) as entries:
                inside = [os.fsencode(entry.name) for entry in entries]
            for child in inside:
                mode = os.stat(child, dir_fd=fd, follow_symlinks=False).st_mode
                self.goes(fd, child, path + b"/" + child, mode)
        finally:
            os.close(fd)

    def _file_goes(self, parent: int, name: bytes, path: bytes) -> None:
        if path in self._links:
            self._links.discard(path)
            return
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            size = os.fstat(fd).st_size
            self._recipe.replaced(path, self._end, size)
            self._copy(fd, size)
        finally:
            os.close(fd)
        self._end += size

    def _copy(self, fd: int, size: int) -> None:
        """The data, with holes left: a sparse file may be far longer than what it holds."""
        os.ftruncate(self._spill, self._end + size)
        start = 0
        with suppress(OSError):  # ENXIO: no data after `start`
            while start < size:
                start = os.lseek(fd, start, os.SEEK_DATA)
                end = os.lseek(fd, start, os.SEEK_HOLE)
                self._copy_range(fd, start, end)
                start = end

    def _copy_range(self, fd: int, start: int, end: int) -> None:
        while start < end:
            start += os.pwrite(self._spill, os.pread(fd, min(end - start, _COPY_BYTES), start), self._end + start)
