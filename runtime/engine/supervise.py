"""What happens by itself: ends, restarts, and finding everything again when the engine comes back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from runtime.engine import records
from runtime.engine.bundle import cgroup_path
from runtime.engine.container import Container, Ended
from runtime.engine.containers import GONE, Containers, is_id, remove_remains
from runtime.engine.core import Core, log
from runtime.engine.lifecycle import Lifecycle
from runtime.engine.probing import Probing
from runtime.engine.restart import GOOD_RUN_S, left_s, restart_delay_s, survives_engine
from runtime.engine.sentences import end_sentence
from runtime.engine.state import State
from runtime.errors import RuntimeFault
from runtime.oci.client import adopt
from runtime.oci.ends import reap_orphan
from runtime.oci.state import ExitRecord
from runtime.oci.state import State as OciState

AT_ONCE = 8
HOST_RESTARTED = "The host was restarted, or lost its power, while it ran."


class Supervisor:
    """Watches what runs. One task a running container, asleep on its monitor's pidfd."""

    def __init__(self, core: Core, lifecycle: Lifecycle, containers: Containers, probing: Probing) -> None:
        self._core = core
        self._probing = probing
        self._lifecycle = lifecycle
        self._containers = containers
        self._turns = asyncio.Semaphore(AT_ONCE)  # after a reboot hundreds may be due at once
        lifecycle.on_running = self.watch
        lifecycle.on_failed = self.after_failed_start

    def watch(self, container: Container, *, adopted: bool = False) -> None:
        """Wait for the container's end, and check its health, beside everything else."""
        self._probing.begin(container, adopted=adopted)
        container.watch_task = self._core.spawn(self._watch(container), f"watch {container.short}")

    async def _watch(self, container: Container) -> None:
        if container.launched is None:
            return
        ended = await container.launched.wait()
        await self.ended(container, ended)

    async def ended(self, container: Container, end: ExitRecord) -> None:
        """Write down how it ended, tell who waits, then restart, remove, or let it rest."""
        core, life = self._core, container.life
        async with container.lock:
            if container.launched:
                container.launched.close()
            container.launched = None
            self._probing.end(container)
            life.exit_code = end.code
            life.oom_killed = end.oom_killed
            life.finished_ns = end.finished_ns or time.time_ns()
            life.sentence = end_sentence(end, container.oom_note)
            delay = self._plan(container)
            ran = (life.finished_ns - life.started_ns) // 10**9
            if end.oom_killed:
                core.emit(container, "oom")
            core.emit(container, "die", exitCode=str(end.code), execDuration=str(max(0, ran)))
            container.exits.fire(Ended(end.code))
            container.oom_note = ""
            if delay is not None:
                await asyncio.to_thread(core.save, container)
                self._restart_after(container, delay)
                return
            if container.record.host.auto_remove:
                await self._containers.discard(container)
                return
            await asyncio.gather(self._lifecycle.joining.leave(container), asyncio.to_thread(core.save, container))

    @staticmethod
    def _plan(container: Container) -> float | None:
        """Decide on a restart after an end, and write the decision into the record: seconds until then, None for none."""
        life = container.life
        ran_s = (life.finished_ns - life.started_ns) / 1e9
        failures = 0 if ran_s >= GOOD_RUN_S else life.failures
        delay = restart_delay_s(
            container.record.host.restart,
            code=life.exit_code,
            restarts=life.restarts,
            stopped_by_user=life.stopped_by_user,
            ran_s=ran_s,
            failures=failures,
        )
        life.failures = 0 if delay is None else failures + 1
        life.due_ns = 0 if delay is None else time.time_ns() + int(delay * 1e9)
        life.state = State.EXITED if delay is None else State.RESTARTING
        return delay

    def _restart_after(self, container: Container, delay_s: float) -> None:
        container.restart_task = self._core.spawn(self._restart(container, delay_s), f"restart {container.short}")

    async def _restart(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with self._turns, container.lock:
            if container.state is not State.RESTARTING or container not in self._core.registry:
                return
            container.restart_task = None
            container.life.restarts += 1
            try:
                await self._lifecycle.make(container)
            except (RuntimeFault, OSError) as error:
                log.warning("container %s was not restarted: %s", container.short, error)
                await self._try_again(container)

    async def _try_again(self, container: Container) -> None:
        """After a restart that failed, for want of a port or of disk perhaps: it counts as a short run, so the policy goes on."""
        delay = self._plan(container)
        await asyncio.to_thread(self._core.save, container)
        if delay is not None:
            self._restart_after(container, delay)

    async def after_failed_start(self, container: Container) -> None:
        """A start that failed: --rm removes the container all the same."""
        if not container.record.host.auto_remove:
            return
        async with container.lock:
            if container in self._core.registry and not container.state.is_live:
                await self._containers.discard(container)

    # what a new engine finds

    async def adopt_all(self) -> None:
        """Read every record, take living containers on, finish what a crash left half done, restart what should run."""
        folders = await asyncio.to_thread(_folders, self._core.config.containers)
        found = []
        for folder in folders:
            container = await self._read(folder)
            if container:
                found.append(container)
        await asyncio.to_thread(self._sweep)
        for container in found:
            self._lifecycle.joining.reserve(container)  # before the first restart takes one
        for container in found:
            await self._find_again(container)
        await self._leave_dead_networks()

    async def _read(self, folder: Path) -> Container | None:
        core = self._core
        if not is_id(folder.name):
            await self._finish_removal(folder)
            return None
        try:
            record = await asyncio.to_thread(records.load, folder)
        except (FileNotFoundError, ValueError) as error:
            log.warning("container %s has no readable record and is removed: %s", folder.name[:12], error)
            await asyncio.to_thread(reap_orphan, folder)
            await self._drop(folder.name, folder)
            return None
        container = Container(record, folder)
        core.ids.adopt(record.id_base)
        core.registry.add(container)
        return container

    async def _finish_removal(self, folder: Path) -> None:
        try:
            record = await asyncio.to_thread(records.load, folder)
        except (FileNotFoundError, ValueError):
            record = None
        await self._drop(folder.name.removesuffix(GONE), folder)
        if record and record.life.removes_volumes:
            await self._containers.volumes.give_back(record.host)

    async def _drop(self, identity: str, folder: Path) -> None:
        """Take away all of a container that no longer counts."""
        sandbox = self._core.networks.sandbox(identity)
        if sandbox:
            await self._core.networks.remove_sandbox(sandbox)
        await asyncio.to_thread(remove_remains, self._core, identity, folder)

    def _sweep(self) -> None:
        """Writable layers and cgroups of containers that have no record."""
        core = self._core
        known = {c.id for c in core.registry}
        for identity in core.driver.containers():
            if identity not in known:
                core.driver.remove(identity)
        for path in core.cgroups.list(core.cgroup_root):
            name = path.rsplit("/", 1)[-1]
            if is_id(name) and name not in known:
                core.cgroups.kill(path)
                core.cgroups.remove(path)

    async def _find_again(self, container: Container) -> None:
        core, life = self._core, container.life
        launched = adopt(container.folder)
        if launched:
            state = OciState.read(container.folder)
            container.launched = launched
            container.init = state.init if state else None
            container.cgroup = cgroup_path(core.cgroup_root, container.record)
            frozen = await asyncio.to_thread(core.cgroups.frozen, container.cgroup)
            life.state = State.PAUSED if frozen else State.RUNNING
            life.started_ns = (state.started_ns if state else 0) or life.started_ns
            self.watch(container, adopted=True)
            return
        state = OciState.read(container.folder)
        was_alive = life.state.is_live or (state is not None and state.created_ns > life.finished_ns)
        if was_alive:
            end = ExitRecord.read(container.folder)
            if end is None or end.finished_ns < life.started_ns:
                end = await asyncio.to_thread(reap_orphan, container.folder)
                if container.record.boot_id != core.boot_id:
                    end = replace(end, reason=HOST_RESTARTED)
            life.started_ns = end.started_ns or (state.started_ns if state else 0) or life.started_ns
            await self._found_ended(container, end)
            return
        if life.started_ns and (life.state is State.RESTARTING or self._survives(container)):
            same_boot = container.record.boot_id == core.boot_id
            self._start_again(container, left_s(life.due_ns, time.time_ns()) if same_boot else 0)
            return
        if container.record.host.auto_remove and life.finished_ns:
            async with container.lock:
                await self._containers.discard(container)

    async def _found_ended(self, container: Container, end: ExitRecord) -> None:
        await asyncio.to_thread(reap_orphan, container.folder)
        await self.ended(container, end)
        if container.state is State.EXITED and self._survives(container):
            self._start_again(container)

    @staticmethod
    def _survives(container: Container) -> bool:
        life = container.life
        return survives_engine(
            container.record.host.restart,
            code=life.exit_code,
            restarts=life.restarts,
            stopped_by_user=life.stopped_by_user,
        )

    def _start_again(self, container: Container, delay_s: float = 0) -> None:
        container.life.state = State.RESTARTING
        self._restart_after(container, delay_s)

    async def _leave_dead_networks(self) -> None:
        for container in self._core.registry:
            if container.state.is_live:
                self._core.networks.release(container.id)
            elif container.state is not State.RESTARTING:
                await self._lifecycle.joining.leave(container)


def _folders(root: Path) -> list[Path]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = []
    for path in root.iterdir():
        if path.is_dir():
            found.append(path)
        else:
            path.unlink()
    return sorted(found)
