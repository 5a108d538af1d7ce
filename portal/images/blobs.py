"""The blob store: what is named by its sha256, written once, never changed. `Blobs` is the protocol, `BlobStore` files.

Layout of files: `<root>/sha256/<first two hex digits>/<hex>`, mode 0600; a file under way lies in `<root>/incoming/`
and becomes visible by rename after fsync, so a blob that can be seen is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
INCOMING_KEPT_S = 24 * 3600  # a crash leaves a file in incoming/; nothing is under way for longer than this


class BlobMissing(LookupError):
    """No blob of this digest is in the store."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in the store: digest `sha256:<hex>` and size in bytes."""

    digest: str
    size_bytes: int


def checked(digest: str) -> str:
    """The digest, if it is one; raises BlobMissing for anything else, so that no path is made of a stranger's text."""
    if not DIGEST.match(digest):
        raise BlobMissing(f"{digest[:80]!r} is not a sha256 digest")
    return digest


class Spool(Protocol):
    """What a writer needs of its store."""

    incoming: Path

    def touch(self, digest: str) -> bool:
        """Make a blob young again; whether it is here."""

    def secure(self, path: Path, digest: str) -> str:
        """Make a whole file durable, which may take seconds; what `keep` and `discard` know it by."""

    def keep(self, path: Path, digest: str, secured: str, size_bytes: int) -> None:
        """Make it visible."""

    def discard(self, secured: str) -> None:
        """It is not kept."""


class BlobWriter:
    """One blob under way. Leaving the `with` block without `commit` removes what was written.

    With `hashed_elsewhere` the one who feeds it hashes the same bytes anyway and tells the digest by `named`. `whole` is a
    file on the same file system that has all of it already: it is taken over.
    """

    def __init__(self, store: Spool, *, hashed_elsewhere: bool = False, whole: Path | None = None) -> None:
        self._store = store
        self._path = whole or store.incoming / secrets.token_hex(16)
        self._fd = -1 if whole else os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = None if hashed_elsewhere else hashlib.sha256()
        self._digest = ""
        self._secured: str | None = None
        self._kept = False
        self.size_bytes = whole.stat().st_size if whole else 0

    def write(self, data: bytes | memoryview) -> None:
        """Append and hash; raises OSError (ENOSPC and the like)."""
        view = memoryview(data)
        if self._hash is not None:
            self._hash.update(view)
        self.size_bytes += len(view)
        while view:
            view = view[os.write(self._fd, view) :]

    @property
    def digest(self) -> str:
        """Digest of what was written so far, or the one it was given."""
        return self._digest if self._hash is None else f"sha256:{self._hash.hexdigest()}"

    def named(self, digest: str) -> None:
        """The digest of all that was written, from who hashed it."""
        self._digest = digest

    def seal(self) -> None:
        """Nothing more is written: make the content durable, outside of any transaction, as this may take seconds."""
        if self._secured is None:
            self.rest()
            self._secured = self._store.secure(self._path, self.digest)

    def rest(self) -> None:
        """Give the file descriptor back; an archive has more members than a process has descriptors."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def commit(self) -> StoredBlob:
        """Make the blob visible; one that is already here is not kept twice."""
        self.seal()
        digest = self.digest
        if not self._store.touch(digest):
            self._store.keep(self._path, digest, self._secured or "", self.size_bytes)
            self._kept = True
        self.drop()
        return StoredBlob(digest, self.size_bytes)

    def drop(self) -> None:
        """Throw away what was written, unless it was committed."""
        self.rest()
        self._path.unlink(missing_ok=True)
        if self._secured and not self._kept:
            self._store.discard(self._secured)
            self._secured = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


class Blobs(Protocol):
    """A store of blobs: files (`BlobStore`) or objects (`objects.ObjectStore`). Safe for several processes at once.

    Each method that takes a digest raises BlobMissing for what is none.
    """

    incoming: Path

    def has(self, digest: str) -> bool:
        """Whether the blob is in the store."""

    def touch(self, digest: str) -> bool:
        """Make a blob young again, so that no collection takes it for an hour; whether it is here."""

    def hold(self, digest: str) -> BlobWriter | None:
        """A blob that is here, so that its removal costs nothing until it is committed; None where that is not possible.

        Raises BlobMissing.
        """

    def size(self, digest: str) -> int:
        """Bytes of a blob; raises BlobMissing."""

    def open(self, digest: str) -> BinaryIO:
        """The blob for reading and seeking; raises BlobMissing."""

    def read(self, digest: str) -> bytes:
        """The whole blob (manifests and configs); raises BlobMissing."""

    def writer(self, *, hashed_elsewhere: bool = False, whole: Path | None = None) -> BlobWriter:
        """Begin a blob, or take over a file that has it."""

    def add(self, data: bytes) -> StoredBlob:
        """Store a small blob at once."""

    def remove(self, digest: str, *, unless_younger_than_s: float = 0) -> bool:
        """Delete a blob unless it was written or asked for again within this time; whether it went."""

    def digests(self) -> Iterator[str]:
        """Every digest in the store."""

    def sweep_incoming(self, *, older_than_s: float = INCOMING_KEPT_S) -> int:
        """Remove what crashed writers left; how many files went."""


class BlobStore:
    """Blobs below one folder; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "sha256").mkdir(mode=0o700, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob of this digest lies or would lie; raises BlobMissing if that is no digest."""
        text = checked(digest).removeprefix("sha256:")
        return self.root / "sha256" / text[:2] / text

    def has(self, digest: str) -> bool:
        """Whether the blob is in the store."""
        return self.path(digest).is_file()

    def touch(self, digest: str) -> bool:
        """Make a blob young again, so that no collection takes it for an hour; whether it is here."""
        with self._lock():
            try:
                os.utime(self.path(digest))
            except FileNotFoundError:
                return False
            return True

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Between processes: a blob is not removed between the look at its age and the removal's decision."""
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def hold(self, digest: str) -> BlobWriter | None:
        """See `Blobs`: a hard link."""
        link = self.incoming / secrets.token_hex(16)
        try:
            os.link(self.path(digest), link)
        except FileNotFoundError:
            raise BlobMissing(f"no blob {digest}") from None
        writer = BlobWriter(self, hashed_elsewhere=True, whole=link)
        writer.named(digest)
        return writer

    def secure(self, path: Path, digest: str) -> str:
        """fsync; see `Spool`."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return ""

    def keep(self, path: Path, digest: str, secured: str, size_bytes: int) -> None:
        """Rename, young: what was written hours ago has no row yet and must not look like a left-over."""
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        os.utime(path)
        path.rename(target)
        sync_folder(target.parent)

    def discard(self, secured: str) -> None:
        """The file is the writer's own."""

    def size(self, digest: str) -> int:
        """Bytes of a blob; raises BlobMissing."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobMissing(f"no blob {digest}") from None

    def open(self, digest: str) -> BinaryIO:
        """The blob for reading, unbuffered; raises BlobMissing."""
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobMissing(f"no blob {digest}") from None

    def read(self, digest: str) -> bytes:
        """The whole blob (manifests and configs); raises BlobMissing."""
        with self.open(digest) as file:
            return file.read()

    def writer(self, *, hashed_elsewhere: bool = False, whole: Path | None = None) -> BlobWriter:
        """See `Blobs`."""
        return BlobWriter(self, hashed_elsewhere=hashed_elsewhere, whole=whole)

    def add(self, data: bytes) -> StoredBlob:
        """Store a small blob at once."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def remove(self, digest: str, *, unless_younger_than_s: float = 0) -> bool:
        """Delete a blob unless it was written or asked for again within this time; whether it went."""
        path = self.path(digest)
        with self._lock():
            try:
                if time.time() - path.stat().st_mtime < unless_younger_than_s:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
            return True

    def digests(self) -> Iterator[str]:
        """Every digest on disk."""
        for folder in (self.root / "sha256").iterdir():
            for file in folder.iterdir():
                yield f"sha256:{file.name}"

    def sweep_incoming(self, *, older_than_s: float = INCOMING_KEPT_S) -> int:
        """Remove what crashed writers left; how many files went."""
        return sweep(self.incoming, older_than_s)


def sweep(folder: Path, older_than_s: float) -> int:
    """Remove the files of a folder that nobody has written to for so long; how many went."""
    gone = 0
    for file in folder.iterdir():
        try:
            if time.time() - file.stat().st_mtime > older_than_s:
                file.unlink()
                gone += 1
        except FileNotFoundError:
            continue
    return gone


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
