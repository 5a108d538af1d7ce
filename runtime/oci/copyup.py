"""Copying what an image has at a place into what will cover it, a tmpfs ("tmpcopyup") or a fresh volume, by descriptors alone.

The init does it, with the container's ids and rights and in its cgroups: whatever the image holds, it can reach nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from runtime.errors import RuntimeFault
from runtime.kernel import syscalls

MAX_DEPTH = 100
MAX_ENTRIES = 100_000
UNFINISHED = ".moorage-unfinished"  # lies in a volume while its first content is copied
_XATTRS = ("user.", "security.capability", "system.posix_acl_")


def copy(source: int, target: int) -> None:
    """Copy everything below the folder `source` (may be O_PATH) into the folder `target`: files, links, folders, modes, owners.

    Devices, fifos and sockets are left out. Raises RuntimeFault past 100 levels or 100,000 entries.
    """
    _copy(source, target, _Copy("tmpcopyup", "Leave the option out."))


def seed(source: int, volume: int) -> None:
    """Copy what the image has at a volume's place into the volume when that is empty, with extended attributes, hard links and
    fifos; the volume's own owner and mode become the image's folder's. A copy that was cut short is begun anew: a file says so.
    """
    if not stat.S_ISDIR(os.fstat(source).st_mode) or not stat.S_ISDIR(os.fstat(volume).st_mode):
        return
    made = _opened(volume)
    try:
        names = _names(made)
        if names and UNFINISHED not in names:
            return
        _clear(os.dup(made), 0)
        try:
            os.close(os.open(UNFINISHED, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=made))
            work = _Copy("the volume's first content", "Mount it with volume-nocopy.", whole=True)
            _copy(source, volume, work)
            if work.entries:
                syscalls.syncfs(made)  # before the engine writes down, durably, that it came
            os.unlink(UNFINISHED, dir_fd=made)
        except BaseException as error:
            _clear(os.dup(made), 0)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RuntimeFault(
                    "What the image has there does not fit into the volume: no space left on device.",
                    "Make the volume larger, or mount it with volume-nocopy.",
                ) from error
            raise
    finally:
        os.close(made)


def _copy(source: int, target: int, work: _Copy) -> None:
    top, made = _opened(source), _opened(target)
    found = os.fstat(top)
    try:
        os.fchown(made, found.st_uid, found.st_gid)
        os.fchmod(made, stat.S_IMODE(found.st_mode))
        work.folder(top, made, 0)
    finally:
        os.close(made)


def _opened(folder: int) -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as listing:
        return [entry.name for entry in listing]


def _clear(folder: int, depth: int) -> None:
    """Remove all below a folder that this process has filled; closes it."""
    try:
        for name in _names(folder):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                if depth <= MAX_DEPTH:
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    _clear(os.open(name, flags, dir_fd=folder), depth + 1)
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


class _Copy:
    """One copy, called `what` where it is refused. `whole`: with attributes, hard links and fifos too."""

    def __init__(self, what: str, hint: str, *, whole: bool = False) -> None:
        self.what, self.hint, self.whole = what, hint, whole
        self.entries = 0
        self.linked: dict[
            tuple[int, int], tuple[int, str]
        ] = {}  # files with several names: the folder's copy, and the name
        self.kept: list[int] = []

    def folder(self, source: int, target: int, depth: int) -> None:
        """Closes `source`."""
        if depth > MAX_DEPTH:
            raise RuntimeFault(f"{self.what}: folders lie deeper than {MAX_DEPTH} levels.", self.hint)
        try:
            for name in _names(source):
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    raise RuntimeFault(f"{self.what}: there are more than {MAX_ENTRIES} entries.", self.hint)
                self._entry(name, source, target, depth)
        finally:
            os.close(source)
            if not depth:
                for fd in self.kept:
                    os.close(fd)

    def _entry(self, name: str, source: int, target: int, depth: int) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            made, below = os.open(name, flags, dir_fd=target), os.open(name, flags, dir_fd=source)
            self._attributes(below, made)
            self.folder(below, made, depth + 1)
        elif stat.S_ISREG(found.st_mode):
            if self._link(found, name, target):
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, 0o600, dir_fd=target)
            self._content(name, source, made)
        elif stat.S_ISFIFO(found.st_mode) and self.whole:
            os.mkfifo(name, 0o600, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
            return
        else:
            return
        _like(made, found)

    def _link(self, found: os.stat_result, name: str, target: int) -> bool:
        """A further name of a file that was copied already; True when it is one."""
        if not self.whole or found.st_nlink < 2:
            return False
        key = found.st_dev, found.st_ino
        before = self.linked.get(key)
        if before is None:
            if len(self.kept) < 256:  # beyond that each name becomes a file of its own
                self.kept.append(os.dup(target))
                self.linked[key] = (self.kept[-1], name)
            return False
        os.link(before[1], name, src_dir_fd=before[0], dst_dir_fd=target, follow_symlinks=False)
        return True

    def _content(self, name: str, source: int, made: int) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            while os.sendfile(made, fd, None, 1 << 24):
                pass
            self._attributes(fd, made)
        finally:
            os.close(fd)

    def _attributes(self, source: int, made: int) -> None:
        """Extended attributes, before the owner is given away; a file system without them copies none."""
        if not self.whole:
            return
        for name in os.listxattr(source):
            if name.startswith(_XATTRS) and not name.startswith("user.overlay."):
                with contextlib.suppress(FileNotFoundError):
                    _set(made, name, os.getxattr(source, name))


def _set(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise


def _like(made: int, found: os.stat_result) -> None:
    """Owner, mode and times as of what was copied; closes the copy."""
    try:
        capability = None
        with contextlib.suppress(OSError):
            capability = os.getxattr(made, "security.capability")  # which chown takes away
        os.fchown(made, found.st_uid, found.st_gid)
        os.fchmod(made, stat.S_IMODE(found.st_mode))
        if capability:
            _set(made, "security.capability", capability)
        os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(made)
