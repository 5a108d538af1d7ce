"""Health checks run inside containers, as further programs: one task a checked container, which sleeps most of the time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.errors import Conflict
from runtime.engine.exec import Exec, ExecFailed, Execs
from runtime.engine.healthcheck import OUTPUT_BYTES, STARTING, UNHEALTHY, Check, Health, Probe
from runtime.engine.state import State
from runtime.oci.client import attach_stream

READ_BYTES = 65_536
KILL_PATIENCE_S = 10.0


class Probing:
    """Begins with a container's life and ends with it."""

    def __init__(self, core: Core, execs: Execs) -> None:
        self._core = core
        self._execs = execs

    def begin(self, container: Container, *, adopted: bool = False) -> None:
        """The container runs; one that ran under an earlier engine is as healthy as it was."""
        check = container.record.process.health
        self._stop(container)
        if check is None or not check.runs:
            container.health = None
            return
        container.health = Health(container.life.health if adopted and container.life.health else STARTING)
        container.life.health = container.health.status
        container.health_task = self._core.spawn(self._run(container, check), f"health {container.short}")

    def end(self, container: Container) -> None:
        """It has ended; what does not run is not healthy."""
        self._stop(container)
        if container.health:
            container.health.status = container.life.health = UNHEALTHY

    @staticmethod
    def _stop(container: Container) -> None:
        if container.health_task:
            container.health_task.cancel()
            container.health_task = None

    async def _run(self, container: Container, check: Check) -> None:
        while container.health:
            up_s = (time.time_ns() - container.life.started_ns) / 1e9
            await asyncio.sleep(container.health.wait_s(check, up_s))
            probe = await self._probe(container, check)
            if probe is None or container.state is not State.RUNNING or container.health is None:
                continue  # it is paused, or is ending
            if container.health.take(probe, check, container.life.started_ns):
                container.life.health = container.health.status
                self._core.emit(container, f"health_status: {container.health.status}")
                await asyncio.to_thread(self._core.save, container)

    async def _probe(self, container: Container, check: Check) -> Probe | None:
        """Run it once. None when the container does not run, for it is paused, say."""
        began, output = time.time_ns(), bytearray()
        try:
            found = self._execs.probe(container, check.args(container.record.process.shell))
        except Conflict:
            return None
        try:
            code, text = await self._carry_out(found, check, output), ""
        except TimeoutError:
            await self._abandon(found)
            code, text = -1, f"Health check exceeded timeout ({check.timeout_s:g}s){': ' if output else ''}"
        except (ExecFailed, Conflict, OSError) as failed:
            code, text = -1, str(failed)
        finally:
            self._execs.forget(found)
        text += output.decode(errors="replace")
        return Probe(start_ns=began, end_ns=time.time_ns(), code=code, output=text)

    async def _carry_out(self, found: Exec, check: Check, output: bytearray) -> int:
        """Its exit code. Raises TimeoutError when it has begun and does not end in time, ExecFailed, Conflict, OSError."""
        launched = await self._execs.open(found, detach=False)
        try:
            reader, writer = await attach_stream(found.attach, stdin=False, stdout=True, stderr=True, raw=True)
        except OSError:
            await launched.abandon()
            raise
        try:
            await self._execs.run(found)
            async with asyncio.timeout(check.timeout_s):
                while data := await reader.read(READ_BYTES):
                    output += data[: OUTPUT_BYTES - len(output)]
                await self._execs.ended(found)
        finally:
            writer.close()
        return -1 if found.exit_code is None else found.exit_code

    @staticmethod
    async def _abandon(found: Exec) -> None:
        if found.launched:
            with suppress(TimeoutError):  # in uninterruptible sleep, perhaps: the next one is not kept waiting
                await asyncio.wait_for(found.launched.abandon(), KILL_PATIENCE_S)
