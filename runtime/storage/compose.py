"""Making one tree of layers, for drivers that cannot stack them: a layer's folder, as overlay wants it, applied to a folder.

The names and links in a layer are a stranger's: everything is done by descriptors of folders, and no link is followed. Nobody
else may change either side meanwhile. Folders are `MAX_DEPTH` deep at most, as extraction sees to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE, _OVERLAYS = "trusted.overlay.opaque", "trusted.overlay."
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV)
_NO_XATTRS = (errno.EOPNOTSUPP, errno.ENODATA)
_COPY_BYTES = 1 << 20


def apply(layer: Path | str, target: Path | str) -> None:
    """Lay the layer's files over those of `target`, with owners, modes, times, attributes and hard links."""
    source = os.open(layer, _FOLDER)
    try:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _Merge(root).folder(source, root, "")
        finally:
            os.close(root)
    finally:
        os.close(source)


@dataclass(slots=True)
class _Merge:
    root: int
    links: dict[tuple[int, int], str] = field(default_factory=dict)  # the first name of a file that has several

    def folder(self, source: int, target: int, path: str) -> None:
        """The entries first: each of them changes the folder's time."""
        with os.scandir(source) as found:
            names = [entry.name for entry in found]
        for name in names:
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                self._subfolder(source, target, name, f"{path}{name}")
            elif stat.S_ISCHR(info.st_mode) and not info.st_rdev:
                remove(target, name)
            else:
                remove(target, name)
                self._entry(source, target, name, path, info)
        _attributes(source, target)

    def _subfolder(self, source: int, target: int, name: str, path: str) -> None:
        inner = os.open(name, _FOLDER, dir_fd=source)
        try:
            if _is_opaque(inner) or not _is_folder(target, name):
                remove(target, name)
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=target)
            below = os.open(name, _FOLDER, dir_fd=target)
            try:
                self.folder(inner, below, f"{path}/")
            finally:
                os.close(below)
        finally:
            os.close(inner)

    def _entry(self, source: int, target: int, name: str, path: str, info: os.stat_result) -> None:
        if info.st_nlink > 1:
            first = self.links.setdefault((info.st_dev, info.st_ino), f"{path}{name}")
            if first != f"{path}{name}":
                os.link(first, name, src_dir_fd=self.root, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(info.st_mode):
            _copy_file(source, target, name)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def remove(folder: int, name: str) -> None:
    """Remove an entry with all that is in it; nothing happens when there is none."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)


def _is_folder(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
        return False


def _attributes(source: int, target: int) -> None:
    """Owner, then mode (a new owner clears setuid), then attributes (and capabilities), then times."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    _copy_xattrs(source, target)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_xattrs(source: int | str, target: int | str) -> None:
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
        return
    for name in names:
        if not name.startswith(_OVERLAYS):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)


def _copy_file(source: int, target: int, name: str) -> None:
    old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _copy_content(old, new)
            _attributes(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_content(old: int, new: int) -> None:
    """Shared with the original where the file system can (btrfs, xfs), else its data without its holes."""
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    else:
        return
    size = os.fstat(old).st_size
    os.ftruncate(new, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(old, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole up to the end
        end = os.lseek(old, start, os.SEEK_HOLE)
        while start < end:
            data = os.pread(old, min(end - start, _COPY_BYTES), start)
            start += os.pwrite(new, data, start) if data else end - start
