"""An archive becomes blobs in one pass: written and hashed as the bytes come, kept only if all of it is right.

Runs in threads; nothing here knows the database. Until `Prepared` is committed everything lies in the store's `incoming/`.
"""

from __future__ import annotations

import dataclasses
import errno
import platform
import posixpath
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from portal.images.blobs import DIGEST, BlobMissing, Blobs, BlobWriter
from portal.images.faults import ImageRefused, NoSpace, shown
from runtime.images.format import MACHINES, ArchivedImage, ArchiveReader, ImageFault, StoredBlob, images, sniff

TOUCH_EVERY_S = 30
_BLOB_NAME = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_HEAD_BYTES = 512


class TooLarge(Exception):
    """The blobs of the archive are more than the team has left; `bytes_so_far` says how many there were."""

    def __init__(self, bytes_so_far: int) -> None:
        super().__init__(bytes_so_far)
        self.bytes_so_far = bytes_so_far


def architecture() -> str:
    """What the hosts run, as images name it: the portal's own."""
    return MACHINES.get(platform.machine(), platform.machine())


@contextmanager
def refusals() -> Iterator[None]:
    """Faults of the format, and a full disk, in the portal's words."""
    try:
        yield
    except ImageFault as fault:
        raise ImageRefused(fault.message, fault.hint) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            "The platform's disk is full.", "Ask the operator to make room, then send the image again."
        ) from None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image whose blobs are durable but not yet visible. `sizes` has every blob of it, manifest and config included."""

    image: ArchivedImage
    sizes: dict[str, int]
    writers: dict[str, BlobWriter]

    @property
    def size_bytes(self) -> int:
        """What it takes in the store when nothing of it was there."""
        return sum(self.sizes.values())

    def commit(self, store: Blobs) -> None:
        """Make the blobs visible: renames only. Raises ImageRefused when one that was here is gone meanwhile."""
        for digest in sorted(self.sizes):  # always the same order: a store may lock rows
            writer = self.writers.get(digest)
            if writer is not None:
                writer.commit()
            elif not store.touch(digest):
                raise ImageRefused("The upload took so long that a layer it relied on was removed.", "Send it again.")


class _Member:
    """Takes one blob of the archive (format.BlobWriter)."""

    def __init__(self, ingest: Ingest, writer: BlobWriter) -> None:
        self._ingest, self._writer = ingest, writer

    def write(self, data: memoryview) -> None:
        self._ingest.count(len(data))
        self._writer.write(data)

    def finish(self, blob: StoredBlob) -> None:
        self._writer.named(blob.digest)
        self._ingest.keep(blob.digest, self._writer)


class _PartialReader(ArchiveReader):
    """A reader of archives that may leave out blobs: `left_out` answers for those that are here.

    What is left out is named `blobs/sha256/<hex>`, or is a link to that name in the place of an old archive's layer.
    """

    def __init__(self, sink: Ingest, left_out: Callable[[str, str], StoredBlob | None]) -> None:
        super().__init__(sink)
        self._left_out = left_out

    def find(self, name: str) -> StoredBlob | None:
        """The blob a manifest means, from the archive or from what is here."""
        found = super().find(name)
        if found is not None:
            return found
        clean = posixpath.normpath(name)
        match = _BLOB_NAME.fullmatch(self.links.get(clean, clean))
        return self._left_out(f"sha256:{match[1]}", name) if match else None


class Ingest:
    """Feed it an archive, then `finish`. Leaving the `with` block removes whatever was not committed.

    `allowed_bytes`: how many bytes may be new; TooLarge beyond that. A layer that is in the store and named by its
    digest is not written again, only verified. `known_size` answers whether, and with how many bytes, the team has a blob
    that the archive leaves out.
    """

    def __init__(
        self, store: Blobs, allowed_bytes: int, known_size: Callable[[str], int | None] = lambda digest: None
    ) -> None:
        self._store = store
        self._allowed_bytes = allowed_bytes
        self._known_size = known_size
        self._reader = _PartialReader(self, self._left_out)
        self._lock = threading.Lock()  # a cancelled request closes while a thread may still be feeding
        self._closed = False
        self._writers: dict[str, BlobWriter] = {}
        self._open: BlobWriter | None = None
        self._known: dict[str, float] = {}  # digests in the store that the archive relies on → last touched
        self.new_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ImageRefused, NoSpace, TooLarge."""
        with self._lock, refusals():
            if not self._closed:
                self._reader.feed(data)
                self._keep_young()

    def finish(self) -> Prepared:
        """The archive is complete: choose its image and make its blobs durable. Raises ImageRefused, NoSpace."""
        with self._lock, refusals():
            self._reader.finish()
            image = _only(images(self._reader, architecture()))
            sizes = {layer.digest: layer.size for layer in image.manifest.layers}
            sizes[image.manifest.config.digest] = image.manifest.config.size
            self._add(image.config_data)  # both may have been made here, for an archive without
            self._add(image.manifest.data)
            sizes[image.manifest.digest] = len(image.manifest.data)
            writers = {digest: self._writers[digest] for digest in sizes if digest in self._writers}
            for writer in writers.values():
                writer.seal()
            return Prepared(image, sizes, writers)

    def open(self, name: str, size: int, kind: str) -> _Member | None:
        """A blob begins (format.BlobSink)."""
        digest = f"sha256:{name.removeprefix('blobs/sha256/')}"
        if DIGEST.match(digest) and self._relies_on(digest):
            return None
        self._open = self._store.writer(hashed_elsewhere=True)
        return _Member(self, self._open)

    def count(self, size_bytes: int) -> None:
        """So many bytes are about to be written; raises TooLarge."""
        self.new_bytes += size_bytes
        if self.new_bytes > self._allowed_bytes:
            raise TooLarge(self.new_bytes)

    def keep(self, digest: str, writer: BlobWriter) -> None:
        """A blob is complete; equal ones, and those in the store, are kept once."""
        self._open = None
        writer.rest()
        if digest in self._writers or digest in self._known or self._store.touch(digest):
            self._known.setdefault(digest, time.monotonic())
            self.new_bytes -= writer.size_bytes
            writer.drop()
        else:
            self._writers[digest] = writer

    def _add(self, data: bytes) -> None:
        writer = self._store.writer()
        writer.write(data)
        self.keep(writer.digest, writer)

    def _left_out(self, digest: str, name: str) -> StoredBlob | None:
        """A blob that the archive does not bring and the team has."""
        size = self._known_size(digest)
        if size is None or not self._relies_on(digest):
            return None
        try:
            with self._store.open(digest) as file:
                kind = sniff(file.read(_HEAD_BYTES))
        except BlobMissing:
            return None
        return StoredBlob(name=name, digest=digest, size=size, kind=kind)

    def _relies_on(self, digest: str) -> bool:
        """Whether the blob is here; then it stays until this ends."""
        if not self._store.touch(digest):
            return False
        self._known[digest] = time.monotonic()
        if digest not in self._writers:
            try:
                held = self._store.hold(digest)
            except BlobMissing:
                return False
            if held is not None:
                self._writers[digest] = held
        return True

    def _keep_young(self) -> None:
        now = time.monotonic()
        for digest, touched in self._known.items():
            if now - touched > TOUCH_EVERY_S:
                self._store.touch(digest)
                self._known[digest] = now

    def close(self) -> None:
        """Remove what was not committed."""
        with self._lock:
            self._closed = True
            for writer in (*self._writers.values(), *([self._open] if self._open else ())):
                writer.drop()
            self._writers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _only(found: list[ArchivedImage]) -> ArchivedImage:
    if len(found) > 1:
        names = ", ".join(image.tags[0] if image.tags else image.id[7:19] for image in found[:5])
        raise ImageRefused(f"The archive holds {len(found)} images: {names}.", "Save the one to deploy by itself.")
    image, wanted = found[0], architecture()
    if image.config.architecture not in ("", wanted):
        raise ImageRefused(
            f"The image is for linux/{image.config.architecture[:40]}; the hosts run linux/{wanted}.",
            f"Build it for them: docker build --platform linux/{wanted} …",
        )
    return image


def config_json(prepared: Prepared) -> dict[str, Any]:
    """What `Image.config` keeps: how to run it, and figures for the page. Values of the environment stay in the blob."""
    config = prepared.image.config
    return {
        "entrypoint": list(config.entrypoint) if config.entrypoint is not None else None,
        "cmd": list(config.cmd) if config.cmd is not None else None,
        "command": list(config.command),
        "env_names": [entry.partition("=")[0] for entry in config.env],
        "user": config.user,
        "working_dir": config.working_dir,
        "port": config.port,
        "exposed_ports": list(config.exposed_ports),
        "volumes": list(config.volumes),
        "stop_signal": config.stop_signal,
        "healthcheck": dataclasses.asdict(config.healthcheck) if config.healthcheck else None,
        "architecture": config.architecture,
        "variant": config.variant,
        "os": config.os,
        "created": config.created,
        "layers": [
            {"digest": layer.digest, "size_bytes": layer.size, "media_type": layer.media_type}
            for layer in prepared.image.manifest.layers
        ],
        "size": shown(prepared.size_bytes),
    }
