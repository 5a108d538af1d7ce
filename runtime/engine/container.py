"""A container while the engine runs: its record, what is alive of it, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.engine.errors import Conflict, Invalid, NotFound
from runtime.engine.healthcheck import Health
from runtime.engine.records import Life, Record
from runtime.engine.state import State
from runtime.kernel.process import ProcessRef
from runtime.oci.client import Launched

HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a waiter is told: Docker's status code, and a sentence when the container never ran or could not be removed."""

    code: int
    error: str = ""


class Signal:
    """Something that happens and is told to all who wait at that moment."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Ended]] = set()

    async def wait(self) -> Ended:
        """The next time it happens."""
        future = self.subscribe()
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def subscribe(self) -> asyncio.Future[Ended]:
        """A future that counts from now on, not from when it is awaited."""
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def fire(self, ended: Ended) -> None:
        """It happened."""
        for future in tuple(self._waiting):
            if not future.done():
                future.set_result(ended)


class Attaching:
    """One who attached before the start: `listening` says that the monitor can be reached, `connected` that they are there."""

    def __init__(self) -> None:
        self.listening: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.connected = asyncio.Event()

    def tell(self, listening: bool) -> None:
        """The monitor listens, or the start failed."""
        if not self.listening.done():
            self.listening.set_result(listening)


class Container:
    """One container. Its `lock` is held by whoever changes its state; nothing else may."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.record = record
        self.folder = folder
        self.lock = asyncio.Lock()
        self.writing = threading.Lock()
        self.launched: Launched | None = None
        self.init: ProcessRef | None = None
        self.exits = Signal()
        self.removals = Signal()
        self.attaching: list[Attaching] = []
        self.restart_task: asyncio.Task[None] | None = None
        self.watch_task: asyncio.Task[None] | None = None
        self.health: Health | None = None  # None without a check
        self.health_task: asyncio.Task[None] | None = None
        self.cgroup = ""
        self.oom_note = ""

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.record.id

    @property
    def short(self) -> str:
        """The first 12 of them."""
        return self.record.id[:12]

    @property
    def name(self) -> str:
        """Without the slash Docker puts before it."""
        return self.record.name

    @property
    def life(self) -> Life:
        """The part that changes."""
        return self.record.life

    @property
    def state(self) -> State:
        """What it is now."""
        return self.record.life.state

    @property
    def labels(self) -> dict[str, str]:
        """The image's and its own."""
        return self.record.process.labels

    @property
    def log(self) -> Path:
        """The folder of its log."""
        return self.folder / "log"

    @property
    def attributes(self) -> dict[str, str]:
        """What its events carry."""
        return {**self.labels, "image": self.record.config.image, "name": self.name}


class Registry:
    """All containers of the engine, found by name, id or a unique beginning of the id."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, Container] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container: Container) -> bool:
        return self._by_id.get(container.id) is container

    def add(self, container: Container) -> None:
        """Enter a container; raises Conflict in Docker's words when its name is taken."""
        self.check_free(container.name)
        self._by_id[container.id] = container
        self._by_name[container.name] = container

    def check_free(self, name: str) -> None:
        """Raise Conflict when a container has this name."""
        holder = self._by_name.get(name)
        if holder:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}".',
                "You have to remove (or rename) that container to be able to reuse that name.",
            )

    def rename(self, container: Container, name: str) -> None:
        """Give another name; raises Conflict when it is taken."""
        self.check_free(name)
        del self._by_name[container.name]
        container.record.name = name
        self._by_name[name] = container

    def discard(self, container: Container) -> None:
        """Forget a container."""
        self._by_id.pop(container.id, None)
        if self._by_name.get(container.name) is container:
            del self._by_name[container.name]

    def find(self, ref: str) -> Container:
        """The container of that name, id or unique beginning of an id; raises NotFound, Invalid when several begin so."""
        ref = ref.removeprefix("/")
        found = self._by_id.get(ref) or self._by_name.get(ref)
        if found:
            return found
        matches = [c for i, c in self._by_id.items() if i.startswith(ref)] if ref and HEX.issuperset(ref) else []
        if len(matches) > 1:
            raise Invalid(f"Multiple IDs found with provided prefix: {ref}.", "Give more digits.")
        if not matches:
            raise NotFound(f"No such container: {ref[:200]}")
        return matches[0]
