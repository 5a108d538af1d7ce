"""What the parts of the daemon share: handed to each once, so that none has to know the others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from runtime.engine.bundle import StoreDevice
from runtime.engine.config import EngineConfig
from runtime.engine.container import Container, Registry
from runtime.engine.events import Events
from runtime.engine.idranges import IdRanges
from runtime.engine.records import save
from runtime.engine.watch import Watcher
from runtime.images.store import ImageStore
from runtime.kernel.cgroups import Cgroups, Offers
from runtime.network.bridge import Networks
from runtime.oci.client import LauncherClient
from runtime.storage.choose import Choice
from runtime.storage.driver import Driver

SETTLE_S = 10.0

log = logging.getLogger("moorage.engine")


@dataclass(slots=True, kw_only=True)
class Core:
    """The engine's parts."""

    config: EngineConfig
    boot_id: str
    driver: Driver
    storage: Choice
    images: ImageStore
    networks: Networks
    launcher: LauncherClient
    cgroups: Cgroups
    offers: Offers
    device: StoreDevice
    watcher: Watcher
    ids: IdRanges
    registry: Registry = field(default_factory=Registry)
    events: Events = field(default_factory=Events)
    started_ns: int = field(default_factory=time.time_ns)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _unfinished: int = 0
    _finished: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._finished.set()

    @property
    def cgroup_root(self) -> str:
        """`moorage-<short>`, relative to each hierarchy."""
        return f"moorage-{self.config.short}"

    def keep(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work that goes on though nobody may wait for it any more; its failure is for who waits."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work beside the request; a failure is logged, never lost."""
        task = self.keep(work, name)
        task.add_done_callback(self._log_failure)
        return task

    @staticmethod
    def _log_failure(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception():
            log.error("%s failed: %s", task.get_name(), task.exception(), exc_info=task.exception())

    @asynccontextmanager
    async def unfinished(self) -> AsyncIterator[None]:
        """A block that the engine's end waits for: a start given up half-way may leave a container that runs already."""
        self._unfinished += 1
        self._finished.clear()
        try:
            yield
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                self._finished.set()

    async def settle(self) -> None:
        """Let starts come to their end, cancel all else that was spawned, and wait for it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), SETTLE_S)
        await asyncio.sleep(0)  # what they spawned last begins
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def emit(self, container: Container, action: str, **extra: str) -> None:
        """One event of a container."""
        self.events.emit("container", action, container.id, {**container.attributes, **extra})

    def save(self, container: Container) -> None:
        """Write the container's record, from any thread; harmless when its folder has gone."""
        with container.writing:
            if container.folder.exists():
                save(container.folder, container.record)
