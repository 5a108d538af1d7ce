"""The bytes of a blob on their way from the wire into its file: hashed and written in a thread while the next ones come."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from portal.images import pushing
from portal.images.ingest import refusals
from portal.images.models import BlobUpload
from portal.threads import in_thread

BATCH_BYTES = 2 << 20  # in a thread at a time; as much again waits behind it
_pool = ThreadPoolExecutor(4, thread_name_prefix="push")
_KEPT = 256
# Hashes of uploads that another request of this process may continue: (bytes so far, hash). Elsewhere they are read anew.
_hashes: OrderedDict[UUID, tuple[int, Any]] = OrderedDict()


class Receiver:
    """Appends one request's body to an upload. After `settle`, at the latest with the block, `total_bytes` and `digest` hold."""

    def __init__(self, upload: BlobUpload, fd: int) -> None:
        self._upload, self._fd = upload, fd
        self.begin_bytes = self.total_bytes = os.fstat(fd).st_size
        known = _hashes.pop(upload.pk, None)
        if self.total_bytes == 0:
            known = (0, hashlib.sha256())
        self._hash = known[1] if known is not None and known[0] == self.total_bytes else None
        self._writing: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def digest(self) -> str:
        """Of all bytes so far; "" when they were not all hashed by this process."""
        return f"sha256:{self._hash.hexdigest()}" if self._hash is not None else ""

    async def take(self, chunks: AsyncIterator[bytes], *, limit_bytes: int | None = None) -> None:
        """Everything that comes; RegistryError, PortalError (413, 507) as soon as it is too much. `limit_bytes`: of the blob."""
        batch: list[bytes] = []
        size, coming = 0, self.total_bytes
        async for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            coming += len(chunk)
            if limit_bytes is not None and coming > limit_bytes:
                raise pushing.too_long(limit_bytes - self.begin_bytes)
            if coming > self._upload.reserved_bytes:
                await in_thread(pushing.reserve_more, self._upload, coming)
            if size >= BATCH_BYTES:
                await self._write(batch)
                batch, size = [], 0
        if batch:
            await self._write(batch)
        await self._written()

    async def _write(self, batch: list[bytes]) -> None:
        await self._written()
        self._writing = asyncio.get_running_loop().run_in_executor(_pool, self._append, batch)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _append(self, batch: list[bytes]) -> None:
        with self._lock, refusals():
            for chunk in batch:
                if self._closed:
                    return
                try:
                    self._put(chunk)
                except OSError:
                    self._hash = None  # it is ahead of the file
                    raise

    def _put(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        if self._hash is not None:
            self._hash.update(view)
        while view:
            written = os.pwrite(self._fd, view, self.total_bytes)
            self.total_bytes += written
            view = view[written:]

    def take_back(self) -> None:
        """Forget what this request brought: it was not what was announced."""
        with self._lock:
            os.ftruncate(self._fd, self.begin_bytes)
            self.total_bytes = self.begin_bytes
            self._hash = None

    async def settle(self) -> None:
        """Wait for what is being written; no thread writes after this. What has come is kept: who was cut off goes on there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await asyncio.wait([writing])
        with self._lock:
            self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.settle()
        if self._hash is not None:
            _hashes[self._upload.pk] = (self.total_bytes, self._hash)
            while len(_hashes) > _KEPT:
                _hashes.popitem(last=False)


def forget(upload: BlobUpload) -> None:
    """An upload that ended."""
    _hashes.pop(upload.pk, None)
