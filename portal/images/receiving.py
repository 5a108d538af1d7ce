"""The bytes of a blob on their way from the wire into its file: hashed and written in a thread while the next ones come."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from portal.images import pushing
from portal.images.asgi_http import ClientGone
from portal.images.ingest import refusals
from portal.images.models import BlobUpload
from portal.threads import in_thread

BATCH_BYTES = 2 << 20  # in threads at a time; as much again waits behind it
SYNC_BYTES = 32 << 20
_pool = ThreadPoolExecutor(6, thread_name_prefix="push")
_KEPT = 256
# Hashes of uploads that another request of this process may continue: (bytes so far, hash). Elsewhere they are read anew.
_hashes: OrderedDict[UUID, tuple[int, Any]] = OrderedDict()


class Receiver:
    """Appends one request's body to an upload. After `settle`, at the latest with the block, `total_bytes` and `digest` hold.

    While a batch comes in, the one before it is hashed in one thread and written in another, and a third lets the disk have
    what was written so far, so that little is left to do at the end.
    """

    def __init__(self, upload: BlobUpload, fd: int) -> None:
        self._upload, self._fd = upload, fd
        self.begin_bytes = self.total_bytes = os.fstat(fd).st_size
        known = _hashes.pop(upload.pk, None)
        if self.total_bytes == 0:
            known = (0, hashlib.sha256())
        found: tuple[int, Any] = known or (-1, hashlib.sha256())
        self._hashed_bytes, self._hash = found
        self._work: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Future[None] | None = None
        self._synced_bytes = self.total_bytes
        self._closed = False

    @property
    def digest(self) -> str:
        """Of all bytes so far; "" when they were not all hashed by this process."""
        return f"sha256:{self._hash.hexdigest()}" if self._hashed_bytes == self.total_bytes else ""

    async def take(self, chunks: AsyncIterator[bytes], *, limit_bytes: int | None = None) -> None:
        """Everything that comes; RegistryError, PortalError (413, 507) as soon as it is too much. `limit_bytes`: of the blob."""
        batch: list[bytes] = []
        size, coming = 0, self.total_bytes
        try:
            async for chunk in chunks:
                coming += len(chunk)
                if limit_bytes is not None and coming > limit_bytes:
                    raise pushing.too_long(limit_bytes - self.begin_bytes)
                if coming > self._upload.reserved_bytes:
                    await in_thread(pushing.reserve_more, self._upload, coming)
                batch.append(chunk)
                size += len(chunk)
                if size >= BATCH_BYTES:
                    await self._put(batch)
                    batch, size = [], 0
        except ClientGone:  # all that came need not be sent again
            await self._put(batch)
            await self._done()
            raise
        await self._put(batch)
        await self._done()

    async def _put(self, batch: list[bytes]) -> None:
        await self._done()
        loop = asyncio.get_running_loop()
        if self._hashed_bytes == self.total_bytes:
            self._work.append(loop.run_in_executor(_pool, self._digest, batch))
        self._work.append(loop.run_in_executor(_pool, self._append, batch))
        if self.total_bytes - self._synced_bytes >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._synced_bytes = self.total_bytes
            self._syncing = loop.run_in_executor(_pool, self._sync)

    async def _done(self) -> None:
        """Wait for the batch that is being worked on; raises what went wrong with it."""
        work, self._work = self._work, []
        if work:
            await asyncio.wait(work)
        for future in work:
            future.result()

    def _digest(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._hash.update(chunk)
            self._hashed_bytes += len(chunk)

    def _append(self, batch: list[bytes]) -> None:
        with refusals():
            for chunk in batch:
                view = memoryview(chunk)
                while view and not self._closed:
                    written = os.pwrite(self._fd, view, self.total_bytes)
                    self.total_bytes += written
                    view = view[written:]

    def _sync(self) -> None:
        with refusals():
            os.fdatasync(self._fd)

    def take_back(self) -> None:
        """Forget what this request brought: it was not what was announced. After `settle`."""
        os.ftruncate(self._fd, self.begin_bytes)
        self.total_bytes, self._hashed_bytes = self.begin_bytes, -1

    async def settle(self) -> None:
        """Wait for what is being written; no thread writes after this. What has come is kept: who was cut off goes on there."""
        try:
            if running := [*self._work, *([self._syncing] if self._syncing is not None else [])]:
                await asyncio.wait(running)
        finally:
            self._closed = True
            self._work = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.settle()
        if self.digest:
            _hashes[self._upload.pk] = (self.total_bytes, self._hash)
            while len(_hashes) > _KEPT:
                _hashes.popitem(last=False)


def forget(upload: BlobUpload) -> None:
    """An upload that ended."""
    _hashes.pop(upload.pk, None)
