"""What is made ahead of need, so that a start finds it ready: network sandboxes, and one container's processes with all it shares
with others (runtime/oci/crew.py). It is held by descriptors and processes alone and dies with the engine and its launcher."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from runtime.engine.core import Core, log
from runtime.errors import RuntimeFault
from runtime.network.model import Sandbox
from runtime.network.wiring import Parked

PARKED = 3
REST_S = 0.002  # of quiet, so that it does not compete with the start which took one
CLAIM_S = 10.0  # how long a crew waits for the start of the container that was created with its ids


@dataclass(frozen=True, slots=True)
class Berth:
    """A crew by its name, the sandbox it lives in and the ids it has."""

    crew: str
    sandbox: Parked
    id_base: int
    since: float
    launcher: int | None  # the pid of the one that holds it


class Parking:
    """Sandboxes with an unattached link, and a berth. `fill` once at the start of the engine; what is taken is replaced."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ready: deque[Parked] = deque()
        self._berth: Berth | None = None
        self._filling: asyncio.Task[None] | None = None
        self._closed = False
        self._made = 0

    def berth(self, id_base: int) -> Berth | None:
        """Take the berth if it is for the container with these ids. One that nobody came for makes room for another."""
        berth = self._berth
        if berth is None:
            return None
        if berth.id_base == id_base:
            self._berth = None
            return berth
        if berth.id_base != self._core.ids.prepared and time.monotonic() - berth.since > CLAIM_S:
            self._berth = None
            self._ready.append(berth.sandbox)
        return None

    async def sandbox(self, container_id: str, berth: Berth | None) -> Sandbox:
        """The berth's sandbox, a parked one, or one made now, for a container. Raises NetworkFault."""
        networks = self._core.networks
        if berth:
            return await networks.adopt(berth.sandbox, container_id)
        if not self._ready:
            return await networks.create_sandbox(container_id)
        return await networks.adopt(self._ready.popleft(), container_id)

    def fill(self, delay_s: float = 0) -> None:
        """Make what is missing, beside everything else."""
        self._forget_dead()
        if not self._closed and not self._filling and self._lacks():
            if self._berth is None:
                self._core.ids.prepare()  # what is created before the crew is there is still for it
            self._filling = self._core.spawn(self._fill(delay_s), "park sandboxes")

    def _forget_dead(self) -> None:
        """A launcher that was killed took its crew along."""
        if self._berth and self._berth.launcher != self._core.launcher.pid:
            self._ready.append(self._berth.sandbox)
            self._berth = None

    def _lacks(self) -> bool:
        return self._berth is None or len(self._ready) < PARKED

    async def _fill(self, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            while self._lacks() and not self._closed:
                if self._ready and self._berth is None:
                    await self._park()
                else:
                    self._ready.append(await self._core.networks.park())
        except (RuntimeFault, OSError) as error:
            log.warning("nothing could be prepared ahead: %s", error)
        finally:
            self._filling = None

    async def _park(self) -> None:
        core, sandbox = self._core, self._ready.popleft()
        try:
            await core.launcher.start()
        except BaseException:
            self._ready.append(sandbox)
            raise
        self._made += 1
        berth = Berth(str(self._made), sandbox, core.ids.prepare(), time.monotonic(), core.launcher.pid)
        self._berth = berth
        await core.launcher.park(berth.crew, sandbox.namespace.fd, berth.id_base)

    async def close(self) -> None:
        """Let the parked ones go, for good: what is being made at this moment too."""
        self._closed = True
        if self._filling:
            await asyncio.wait([self._filling])
        if self._berth:
            self._ready.append(self._berth.sandbox)
            self._berth = None
        while self._ready:
            await self._core.networks.discard(self._ready.popleft())
