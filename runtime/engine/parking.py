"""A few network sandboxes made ahead of need, so that a start finds one ready. They are held by descriptors alone."""

from __future__ import annotations

import asyncio
from collections import deque

from runtime.engine.core import Core, log
from runtime.network.model import NetworkFault, Sandbox
from runtime.network.wiring import Parked

PARKED = 3
REST_S = 0.02  # making one takes some milliseconds of CPU that the start which took one still needs


class Parking:
    """Sandboxes with an unattached link. `fill` once at the start of the engine; what is taken is replaced."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ready: deque[Parked] = deque()
        self._filling = False

    async def sandbox(self, container_id: str) -> Sandbox:
        """A parked sandbox for a container, or one made now. Raises NetworkFault."""
        networks = self._core.networks
        if not self._ready:
            sandbox = await networks.create_sandbox(container_id)
        else:
            sandbox = await networks.adopt(self._ready.popleft(), container_id)
        self.fill(REST_S)
        return sandbox

    def fill(self, delay_s: float = 0) -> None:
        """Make what is missing, beside everything else."""
        if not self._filling and len(self._ready) < PARKED:
            self._filling = True
            self._core.spawn(self._fill(delay_s), "park sandboxes")

    async def _fill(self, delay_s: float) -> None:
        try:
            while len(self._ready) < PARKED:
                await asyncio.sleep(delay_s)
                self._ready.append(await self._core.networks.park())
        except (NetworkFault, OSError) as error:
            log.warning("no sandbox could be parked: %s", error)
        finally:
            self._filling = False

    async def close(self) -> None:
        """Let the parked ones go."""
        while self._ready:
            await self._core.networks.discard(self._ready.popleft())
