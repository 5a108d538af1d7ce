"""Copying what an image has at a place into the tmpfs that will cover it ("tmpcopyup"), by descriptors alone."""

from __future__ import annotations

import os
import stat

from runtime.errors import RuntimeFault

MAX_DEPTH = 100
MAX_ENTRIES = 100_000


def copy(source: int, target: int) -> None:
    """Copy everything below the folder `source` (may be O_PATH) into the folder `target`: files, links, folders, modes, owners.

    Devices, fifos and sockets are left out. Raises RuntimeFault past 100 levels or 100,000 entries.
    """
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    found = os.fstat(top)
    made = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    try:
        os.fchown(made, found.st_uid, found.st_gid)
        os.fchmod(made, stat.S_IMODE(found.st_mode))
        _Copy().folder(top, made, 0)
    finally:
        os.close(made)


class _Copy:
    def __init__(self) -> None:
        self.entries = 0

    def folder(self, source: int, target: int, depth: int) -> None:
        """Closes `source`."""
        if depth > MAX_DEPTH:
            raise RuntimeFault(f"tmpcopyup: folders lie deeper than {MAX_DEPTH} levels.", "Leave the option out.")
        try:
            with os.scandir(source) as listing:
                names = [entry.name for entry in listing]
            for name in names:
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    raise RuntimeFault(
                        f"tmpcopyup: there are more than {MAX_ENTRIES} entries.", "Leave the option out."
                    )
                self._entry(name, source, target, depth)
        finally:
            os.close(source)

    def _entry(self, name: str, source: int, target: int, depth: int) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            self.folder(below, made, depth + 1)
        elif stat.S_ISREG(found.st_mode):
            made = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            self._content(name, source, made)
        else:
            return
        os.fchown(made, found.st_uid, found.st_gid)
        os.fchmod(made, mode)
        os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.close(made)

    def _content(self, name: str, source: int, made: int) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            while os.sendfile(made, fd, None, 1 << 24):
                pass
        finally:
            os.close(fd)
