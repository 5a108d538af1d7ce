"""Mounts by descriptor: made or cloned detached, given their attributes, then attached on a path resolved inside a root.

mount_setattr(2), move_mount(2), open_tree(2), fsopen(2). A hostile image's symbolic links cannot lead a target outside its
root: paths are opened with RESOLVE_IN_ROOT.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from runtime.kernel import syscalls

_MAX_LINKS = 40
_MAX_TRIES = 1000


def make(fstype: str, data: Sequence[str] = (), attrs: int = 0, source: str = "") -> int:
    """A new, detached mount of a file system; `data` are "key=value" or "flag". Returns its descriptor."""
    context = syscalls.fsopen(fstype)
    try:
        if source:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", source)
        for item in data:
            key, separator, value = item.partition("=")
            kind = syscalls.FSCONFIG_SET_STRING if separator else syscalls.FSCONFIG_SET_FLAG
            syscalls.fsconfig(context, kind, key, value if separator else None)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attrs)
    finally:
        os.close(context)


def clone(path: str | Path, *, dir_fd: int = syscalls.AT_FDCWD, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` (with "" of `dir_fd` itself), like a bind mount."""
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
    return syscalls.open_tree(dir_fd, path, flags | (0 if str(path) else syscalls.AT_EMPTY_PATH))


def set_idmap(mount_fd: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Map the ids of a detached mount by a user namespace: id n on disk is seen as what the namespace maps n to."""
    syscalls.mount_setattr(mount_fd, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive)


def add_attributes(
    mount_fd: int, attrs: int, *, clear: int = 0, recursive: bool = False, private: bool = False
) -> None:
    """Set and clear attribute bits (MOUNT_ATTR_*); with `private` nothing that happens to the mount reaches its peers, or theirs it."""
    clear |= syscalls.MOUNT_ATTR_ATIME if attrs & syscalls.MOUNT_ATTR_ATIME else 0
    propagation = syscalls.MS_PRIVATE if private else 0
    syscalls.mount_setattr(mount_fd, attr_set=attrs, attr_clr=clear, propagation=propagation, recursive=recursive)


def set_propagation(mount_fd: int, kind: int, *, recursive: bool = False) -> None:
    """MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE."""
    syscalls.mount_setattr(mount_fd, propagation=kind, recursive=recursive)


def make_private() -> None:
    """Let nothing that is mounted here reach another mount namespace."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)


def receive_only() -> None:
    """Let what the host mounts be seen here, and nothing that is mounted here be seen there."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)


def open_inside(root_fd: int, path: str, *, flags: int = os.O_PATH, links: bool = True) -> int:
    """Open `path` as a process whose root is `root_fd` would; raises OSError, ELOOP for a symbolic link where `links` are not wanted.

    A mount or rename anywhere on the host while a ".." is looked up makes the kernel ask for another try (openat2(2)).
    """
    resolve = syscalls.RESOLVE_IN_ROOT | (0 if links else syscalls.RESOLVE_NO_SYMLINKS)
    for _ in range(_MAX_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return syscalls.openat2(root_fd, path.lstrip("/") or ".", flags, resolve=resolve)
    return syscalls.openat2(root_fd, path.lstrip("/") or ".", flags, resolve=resolve)


def target_inside(root_fd: int, path: str, *, folder: bool) -> int:
    """An O_PATH descriptor of a mount target below `root_fd`; missing folders, and the file itself, are made."""
    try:
        return open_inside(root_fd, path)
    except FileNotFoundError:
        pass
    with contextlib.suppress(FileNotFoundError, FileExistsError):  # a folder on the way is missing, or a link dangles
        return _make_last(root_fd, path, folder=folder)
    done: list[str] = []
    rest = [part for part in PurePosixPath(path).parts if part != "/"]
    links = 0
    while rest:
        name = rest.pop(0)
        if name == "..":
            done = done[:-1]
            continue
        link = _step(root_fd, done, name, folder=folder or bool(rest))
        if link is None:
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        done = [] if link.startswith("/") else done
        rest = [part for part in PurePosixPath(link).parts if part != "/"] + rest
    return open_inside(root_fd, "/".join(done))


def plain_folder_inside(root_fd: int, path: str) -> int:
    """A mount target that the image has no symbolic link to, made when it is missing: for what masks are put over later.

    Through a link they could be put elsewhere than the mount (CVE-2019-19921).
    """
    os.close(target_inside(root_fd, path, folder=True))
    try:
        return open_inside(root_fd, path, links=False)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(error.errno, f"the image's {path} is a symbolic link, where a folder belongs") from error


def _make_last(root_fd: int, path: str, *, folder: bool) -> int:
    """Make the last component below folders that are there, as most targets are; FileExistsError for a dangling link."""
    head, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    parent = open_inside(root_fd, head)
    try:
        _make_entry(parent, name, folder=folder)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def _step(root_fd: int, done: list[str], name: str, *, folder: bool) -> str | None:
    """One component below `done`, made when it is missing. Returns what a symbolic link, maybe a dangling one, leads to."""
    parent = open_inside(root_fd, "/".join(done))
    try:
        here = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        _make_entry(parent, name, folder=folder)
        return None
    else:
        found = os.readlink("", dir_fd=here) if stat.S_ISLNK(os.fstat(here).st_mode) else None
        os.close(here)
        return found
    finally:
        os.close(parent)


def _make_entry(parent: int, name: str, *, folder: bool) -> None:
    if folder:
        os.mkdir(name, 0o755, dir_fd=parent)
        return
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=parent))


def is_folder(fd: int) -> bool:
    """Whether a descriptor, also an O_PATH one, is a folder's."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def attach(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on an opened target; both descriptors are closed."""
    try:
        syscalls.move_mount(mount_fd, target_fd)
    finally:
        os.close(mount_fd)
        os.close(target_fd)


def attach_root(root_fd: int) -> None:
    """Attach a detached mount over "/", so that others may be attached below it; "/" still names the old root."""
    syscalls.move_mount(root_fd, syscalls.AT_FDCWD, "/")


def open_top() -> int:
    """An O_PATH descriptor of the mount that lies uppermost on this process's root ("/.." crosses into it)."""
    return os.open("/..", os.O_PATH | os.O_CLOEXEC)


def enter_root(root_fd: int, *, layers: int = 1) -> None:
    """Make the mount attached by `attach_root` the root and let go of the old one (pivot_root(2), NOTES).

    `layers` is how many mounts lie one upon another there: each is detached by itself.
    """
    os.fchdir(root_fd)
    syscalls.pivot_root(".", ".")
    for _ in range(layers):
        syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def change_root(root_fd: int) -> None:
    """Like `enter_root` by chroot(2), for a root that cannot be pivoted (a ramdisk's); the old one stays below."""
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir("/")
