"""Removing trees that strangers wrote: any depth, any names, no symbolic link followed, no descriptor per level."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from runtime.kernel import btrfs
from runtime.storage.driver import StorageFault


def discard(path: Path, trash: Path) -> None:
    """Move `path` into `trash` in one step, then empty the trash. Nothing happens when there is no `path`."""
    trash.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        path.rename(trash / f"{path.name}-{os.urandom(6).hex()}")
    empty(trash)


def empty(trash: Path) -> None:
    """Remove all that is in `trash`. Folders are first moved up into it, so the depth never matters.

    Raises StorageFault when something stays, for instance a mount point.
    """
    fd = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        names = _names(fd)
        while names:
            name = names.pop()
            with suppress(FileNotFoundError):  # another thread empties the same trash
                if not _unlink(name, fd) and not _destroy_subvolume(name, fd):
                    names += _flatten(name, fd)
                    os.rmdir(name, dir_fd=fd)
    except OSError as error:
        raise StorageFault(f"{trash} could not be emptied: {error}.", "Is something below it still mounted?") from error
    finally:
        os.close(fd)


def _names(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries]


def _unlink(name: str, fd: int) -> bool:
    """Remove what is no folder; True when done."""
    try:
        os.unlink(name, dir_fd=fd)
    except IsADirectoryError:
        return False
    return True


def _flatten(name: str, fd: int) -> list[str]:
    """Remove the files of a folder and move its folders up to `fd`; returns their new names."""
    moved = []
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        for child in _names(inside):
            with suppress(FileNotFoundError):
                if not _unlink(child, inside):
                    new = f"d-{os.urandom(8).hex()}"
                    os.rename(child, new, src_dir_fd=inside, dst_dir_fd=fd)
                    moved.append(new)
    finally:
        os.close(inside)
    return moved


def _destroy_subvolume(name: str, parent: int) -> bool:
    """Remove a folder that is a subvolume of btrfs, and those in it; nothing can be moved out of one. True when done."""
    if not _is_subvolume(name, parent):
        return False
    try:
        btrfs.destroy(parent, name)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        for _, folders, _, fd in os.fwalk(name, topdown=False, dir_fd=parent):
            for folder in folders:
                if _is_subvolume(folder, fd):
                    btrfs.destroy(fd, folder)
        btrfs.destroy(parent, name)
    return True


def _is_subvolume(name: str, parent: int) -> bool:
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return info.st_ino == btrfs.FIRST_INODE and stat.S_ISDIR(info.st_mode) and info.st_dev != os.fstat(parent).st_dev


def disk_bytes(path: Path) -> int:
    """What the files below `path` take on disk, in bytes; symbolic links are not followed."""
    total, folders = 0, [str(path)]
    while folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return total
