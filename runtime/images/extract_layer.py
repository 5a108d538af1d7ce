"""Writes the entries of one layer below a folder as overlay wants them. Runs in the confined child (see `extract`)."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from runtime.images.extract_folders import Folders, clean, remove, shown_path
from runtime.images.extract_replaced import Replacements
from runtime.images.format_digest import MAX_ID, ImageFault, shown
from runtime.images.format_tar_header import Kind, TarHeader
from runtime.images.recipe import RecipeWriter

_WHITEOUT, _OPAQUE, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."
_MAX_OPAQUE = 100_000
_KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def kept_xattr(name: str) -> bool:
    """Whether an extended attribute is an image's: `trusted.*` and `user.overlay.*` would steer overlay."""
    return name.startswith(_KEPT_XATTRS) and not name.startswith("user.overlay.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """What one layer may hold. `max_bytes` counts the files' content and, for sparse ones, their data.

    Without `whiteouts` their names are files like others: what is unpacked is no layer.
    """

    max_bytes: int = 64 << 30
    max_entries: int = 2_000_000
    ratio: int = 200
    whiteouts: bool = True


class LayerWriter:
    """A `TarVisitor`. `opaque` names the folders that hide what lies below; `size_bytes` is what was written."""

    def __init__(self, root: int, limits: LayerLimits, recipe: RecipeWriter, spill: int) -> None:
        self._root = root
        self._limits = limits
        self._recipe = recipe
        self._replaced = Replacements(recipe, spill)
        self._folders = Folders(root)
        self._left_out: set[bytes] = set()  # device nodes
        self._times: dict[bytes, int] = {}  # of folders: set last, for each entry in them changes it
        self._file = -1
        self._header: TarHeader | None = None
        self._pieces: deque[tuple[int, int]] = deque()
        self.opaque: dict[bytes, None] = {}
        self.size_bytes = 0

    def entry(self, header: TarHeader) -> None:
        """An entry begins."""
        path = clean(header.name)
        if max(header.uid, header.gid) > MAX_ID:
            raise ImageFault(
                f"{shown_path(path)} belongs to {header.uid}:{header.gid}; {MAX_ID} is the greatest id.",
                "A container's id range is 65,536 ids wide: build the image with smaller ids.",
            )
        self._header = None
        if not path:
            self._root_entry(header)
        elif self._limits.whiteouts and path.rpartition(b"/")[2].startswith(_WHITEOUT):
            self._whiteout(path)
        else:
            self._create(path, header)

    def data(self, chunk: memoryview) -> None:
        """Bytes of a file."""
        if self._file < 0:
            self._recipe.raw(chunk)
            return
        self.size_bytes += len(chunk)
        if self.size_bytes > self._limits.max_bytes:
            raise ImageFault(f"The layer unpacks to more than {shown(self._limits.max_bytes)}, which is the limit.")
        if self._header is not None and self._header.sparse is not None:
            self._write_pieces(chunk)
        else:
            _write(self._file, chunk)

    def end(self) -> None:
        """The entry is complete: owner first, for it clears setuid and capabilities, then attributes, mode and time."""
        header, self._header = self._header, None
        if header is None or self._file < 0:
            return
        fd, self._file = self._file, -1
        try:
            if header.sparse is not None:
                os.ftruncate(fd, header.real_size)
            self._attributes(fd, header)
            os.utime(fd, ns=(header.mtime_ns, header.mtime_ns))
        finally:
            os.close(fd)

    def close(self) -> None:
        """All entries are written: give the folders their times."""
        for path, mtime_ns in self._times.items():
            with suppress(FileNotFoundError, NotADirectoryError, ImageFault):
                os.utime(self._folders.open(path), ns=(mtime_ns, mtime_ns))
        self._folders.forget()

    def _root_entry(self, header: TarHeader) -> None:
        if header.kind is not Kind.DIRECTORY:
            raise ImageFault("The layer has an entry without a name.")
        self._attributes(self._root, header)
        self._times[b""] = header.mtime_ns

    def _whiteout(self, path: bytes) -> None:
        """A `.wh.` name: a character device 0/0 hides one entry below, an opaque folder hides all of its."""
        parent, name = self._folders.parent(path)
        folder = path.rpartition(b"/")[0]
        if name == _OPAQUE:
            self._make_opaque(folder)
        elif not name.startswith(_AUFS):  # the rest of those is aufs's own bookkeeping
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise ImageFault(f"The whiteout {shown_path(path)} names nothing.", "It was refused as hostile.")
            try:
                os.mknod(hidden, stat.S_IFCHR | 0o000, os.makedev(0, 0), dir_fd=parent)
            except FileExistsError:  # the layer itself has the name: only what is below is hidden
                if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                    self._make_opaque(folder + b"/" + hidden if folder else hidden)

    def _make_opaque(self, folder: bytes) -> None:
        self.opaque[folder] = None
        if len(self.opaque) > _MAX_OPAQUE:
            raise ImageFault(f"The layer has more than {_MAX_OPAQUE} opaque folders, which is the limit.")

    def _create(self, path: bytes, header: TarHeader) -> None:
        parent, name = self._folders.parent(path)
        if self._is_left_out(path, header):
            self._leave_out(parent, name, path)
            return
        try:
            self._make(parent, name, path, header)
        except FileExistsError:
            if self._replace(parent, name, path, header):
                parent, name = self._folders.parent(path)
                self._make(parent, name, path, header)

    def _replace(self, parent: int, name: bytes, path: bytes, header: TarHeader) -> bool:
        """Make room for a second entry of the same name; False when it is a folder again, whose attributes are then renewed."""
        before = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if header.kind is Kind.DIRECTORY and stat.S_ISDIR(before.st_mode):
            self._attributes(self._folders.open(path), header)
            self._times[path] = header.mtime_ns
            return False
        parent = self._remove(parent, name, path, before.st_mode)
        if header.kind is Kind.DIRECTORY and stat.S_ISCHR(before.st_mode):
            self._make_opaque(path)  # a whiteout came before
        return True

    def _remove(self, parent: int, name: bytes, path: bytes, mode: int) -> int:
        """Take away what an earlier entry made; returns the parent's descriptor, which may be another now."""
        self._replaced.goes(parent, name, self._folders.real(path), mode)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):  # paths may lead through it
            self._folders.forget()
            parent, name = self._folders.parent(path)
        remove(parent, name)
        return parent

    def _is_left_out(self, path: bytes, header: TarHeader) -> bool:
        """Device nodes and links to them: a container gets its devices at the start, and could use no others."""
        if header.kind is Kind.HARD_LINK:
            return clean(header.link_name, "hard link to") in self._left_out
        self._left_out.discard(path)
        return header.kind in {Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE}

    def _leave_out(self, parent: int, name: bytes, path: bytes) -> None:
        self._left_out.add(path)
        with suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISCHR(mode):
                self._remove(parent, name, path, mode)

    def _make(self, parent: int, name: bytes, path: bytes, header: TarHeader) -> None:
        if header.kind is Kind.FILE:
            self._file = os.open(name, _CREATE, 0o600, dir_fd=parent)
            self._recipe.content(self._folders.real(path), header.size, header.sparse)
            self._header, self._pieces = header, deque(header.sparse or ())
        elif header.kind is Kind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
            self._attributes(self._folders.open(path), header)
            self._times[path] = header.mtime_ns
        elif header.kind is Kind.HARD_LINK:
            self._hard_link(parent, name, path, header)
        elif header.kind is Kind.SYMLINK:
            self._symlink(parent, name, path, header)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
            os.chown(name, header.uid, header.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, header.mode, dir_fd=parent)
            os.utime(name, ns=(header.mtime_ns,) * 2, dir_fd=parent, follow_symlinks=False)

    def _hard_link(self, parent: int, name: bytes, path: bytes, header: TarHeader) -> None:
        target = clean(header.link_name, "hard link to")
        folder, _, last = target.rpartition(b"/")
        source = os.dup(parent)  # opening the target's folder may close the parent's
        try:
            there = self._folders.open(folder)
            mode = os.stat(last, dir_fd=there, follow_symlinks=False).st_mode if last else stat.S_IFDIR
            if stat.S_ISDIR(mode) or stat.S_ISCHR(mode):
                raise ImageFault(f"The layer has a hard link to {shown_path(target)}, which is no file.")
            os.link(last, name, src_dir_fd=there, dst_dir_fd=source, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ImageFault(f"The layer has a hard link to {shown_path(target)}, which it does not have.") from error
        finally:
            os.close(source)
        if stat.S_ISREG(mode):
            self._replaced.linked(self._folders.real(path))

    def _symlink(self, parent: int, name: bytes, path: bytes, header: TarHeader) -> None:
        if not header.link_name or len(header.link_name) > 4095:
            raise ImageFault(f"The symbolic link {shown_path(path)} has a target that is empty or too long.")
        os.symlink(header.link_name, name, dir_fd=parent)
        os.chown(name, header.uid, header.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(header.mtime_ns,) * 2, dir_fd=parent, follow_symlinks=False)

    @staticmethod
    def _attributes(fd: int, header: TarHeader) -> None:
        os.fchown(fd, header.uid, header.gid)
        for name, value in header.xattrs.items():
            if kept_xattr(name):
                _set_xattr(fd, name, value)
        os.fchmod(fd, header.mode)

    def _write_pieces(self, chunk: memoryview) -> None:
        while len(chunk):
            offset, length = self._pieces[0]
            count = min(length, len(chunk))
            os.lseek(self._file, offset, os.SEEK_SET)
            _write(self._file, chunk[:count])
            chunk = chunk[count:]
            self._pieces[0] = (offset + count, length - count)
            if count == length:
                self._pieces.popleft()


def _write(fd: int, chunk: memoryview) -> None:
    while len(chunk):
        chunk = chunk[os.write(fd, chunk) :]


def _set_xattr(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # the host's file system has none: the image runs without
            return
        raise ImageFault(f"The attribute {name[:100]} of a file is not valid ({error.strerror}).") from error
