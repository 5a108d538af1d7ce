"""Start, stop, kill, pause: what is done to a container that is there. Ends are dealt with in supervise.py."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from runtime.engine import bundle
from runtime.engine.admission import admit
from runtime.engine.container import Container, Ended
from runtime.engine.core import Core, log
from runtime.engine.errors import Conflict, EngineFault, Invalid, NotModified
from runtime.engine.joining import Joining, host_resolv
from runtime.engine.mountrequest import VolumeMount
from runtime.engine.parking import REST_S, Parking
from runtime.engine.state import State
from runtime.engine.volumes import EngineVolumes
from runtime.errors import RuntimeFault
from runtime.oci.client import Launched, LaunchRequest, LogOptions, StartFailed
from runtime.oci.state import EXIT, STATE
from runtime.oci.state import State as OciState
from runtime.storage.driver import RootPlan

STOP_TIMEOUT_S = 10
KILL_PATIENCE_S = 30.0
ATTACH_PATIENCE_S = 5.0


class CannotStart(EngineFault):
    """The program could not be started; Docker's clients read 126 and 127 from the words."""

    status = 400


def signal_number(text: str) -> int:
    """`KILL`, `SIGKILL`, `9` or `RTMIN+3` as a number; raises Invalid."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit() and 0 < int(name) < 65:
        return int(name)
    base, _, plus = name.partition("+")
    if base == "RTMIN" and (not plus or plus.isdigit()) and int(plus or 0) <= 30:
        return 34 + int(plus or 0)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError as error:
        raise Invalid(f"Invalid signal: {text[:32]}.") from error


def stop_signal(container: Container) -> int:
    """The signal it is asked by to end; SIGTERM where its image names none that exists."""
    try:
        return signal_number(container.record.process.stop_signal)
    except Invalid:
        return signal.SIGTERM


async def both[A, B](first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Both results; when one fails, it is raised once the other has ended too, so that what it made can be undone."""
    one, other = asyncio.ensure_future(first), asyncio.ensure_future(second)
    await asyncio.wait((one, other))
    other.exception()  # seen, in case both failed
    return one.result(), other.result()


class Lifecycle:
    """Changes of state that people ask for. `on_running` is told of each container that lives now (supervise sets it)."""

    def __init__(self, core: Core, volumes: EngineVolumes) -> None:
        self._core = core
        self._volumes = volumes
        self.parking = Parking(core)
        self.joining = Joining(core, self.parking)
        self.on_running: Callable[[Container], None] = lambda container: None
        self.on_failed = self._ignore

    async def _ignore(self, container: Container) -> None:
        """Nobody supervises yet."""

    async def start(self, container: Container) -> None:
        """Make the container run. Raises NotModified when it does, Conflict, CannotStart."""
        self._cancel_restart(container)
        async with container.lock:
            if container.state.is_live:
                raise NotModified("The container is running.")
            if not container.state.can_start:
                raise Conflict(f"cannot start a container that is {container.state}.", "Wait until it is removed.")
            container.life.stopped_by_user = False
            container.life.restarts = container.life.failures = 0
            await self.make(container)

    async def make(self, container: Container) -> None:
        """Storage, network, specification, launcher, gate: each undone in reverse when a later one fails. Holds the lock."""
        core, life = self._core, container.life
        try:
            async with core.unfinished(), self._volumes.mounted(container) as seeded, AsyncExitStack() as undo:
                launched = await self._launch(container, undo, seeded)
                await self._attach_waiting(container, launched)
                life.started_ns = await launched.release()
                undo.pop_all()
                self.parking.fill(REST_S)
        except (RuntimeFault, OSError) as error:
            await self._failed(container, error)
            raise self._words(container, error) from error
        container.launched = launched
        life.state, life.exit_code, life.error, life.sentence, life.oom_killed = State.RUNNING, 0, "", "", False
        life.finished_ns = 0
        container.record.boot_id = core.boot_id
        core.emit(container, "start")
        self.on_running(container)
        core.spawn(self._save_soon(container), "save record")

    async def _save_soon(self, container: Container) -> None:
        """After the answer is out: until then a new engine learns from the container's own state file that it runs."""
        await asyncio.sleep(REST_S)
        await asyncio.to_thread(self._core.save, container)

    async def _launch(self, container: Container, undo: AsyncExitStack, seeded: tuple[VolumeMount, ...]) -> Launched:
        """Processes set to work as soon as the specification is written; storage and network are made beside them."""
        core, record = self._core, container.record
        admit(core, record.id, record.host.resources.disk_size)
        undo.push_async_callback(self.joining.leave, container)
        undo.callback(self.parking.fill, REST_S)
        berth = None
        if record.host.network_mode != "host" and core.networks.sandbox(record.id) is None:
            berth = self.parking.berth(record.id_base)
        sandbox = await self.joining.sandbox(container, berth)
        spec = bundle.make_spec(
            record,
            root=core.cgroup_root,
            home=core.config.home,
            netns=sandbox.path if sandbox else None,
            device=core.device,
            seeded=seeded,
        )
        bundle.write_config(container.folder, spec)
        for name in (EXIT, STATE):
            (container.folder / name).unlink(missing_ok=True)
        underway = await core.launcher.begin(self.launch_request(container, berth.crew if berth else ""))
        undo.push_async_callback(underway.abandon)
        endpoint, plan = await both(self.joining.connect(container, sandbox), self._prepare_root(container))
        resolv = core.networks.resolv_conf(record.id) if endpoint else "" if sandbox else host_resolv()
        bundle.write_host_files(container.folder, record, address=endpoint.address if endpoint else "", resolv=resolv)
        plan.write(container.folder / "root.json")
        launched = await underway.complete()
        state = OciState.read(container.folder)
        container.init = state.init if state else None
        container.cgroup = spec.linux.cgroups_path
        return launched

    async def _prepare_root(self, container: Container) -> RootPlan:
        core, record = self._core, container.record
        chain_ids = record.chain_ids or (await asyncio.to_thread(core.images.resolve, record.image_id)).chain_ids
        return await asyncio.to_thread(
            core.driver.prepare,
            record.id,
            chain_ids,
            size_bytes=record.host.resources.disk_size,
            readonly=record.host.read_only,
        )

    def launch_request(self, container: Container, crew: str = "") -> LaunchRequest:
        """What the launcher is asked for; also how a living container is adopted."""
        config = container.record.config
        return LaunchRequest(
            id=container.id,
            bundle=container.folder,
            attach=self._core.config.run / "attach" / f"{container.short}.sock",
            log=log_options(container),
            stdin=config.open_stdin,
            stdin_once=config.stdin_once,
            go=not container.attaching,  # who attached before the start may miss nothing
            crew=crew,
        )

    async def _attach_waiting(self, container: Container, launched: Launched) -> None:
        """Let those who attached before the launch connect, so that they miss nothing, before the gate opens."""
        waiting, container.attaching = container.attaching, []
        for client in waiting:
            client.tell(True)
        if not waiting or launched.gate_open:
            return
        try:
            async with asyncio.timeout(ATTACH_PATIENCE_S):
                await asyncio.gather(*(client.connected.wait() for client in waiting))
        except TimeoutError:
            log.warning("container %s: a client that attached did not connect in time", container.short)
        except BaseException:
            await launched.abandon()
            raise

    async def _failed(self, container: Container, error: Exception) -> None:
        life = container.life
        life.state = State.CREATED if not life.started_ns else State.EXITED
        life.error = str(error)
        life.exit_code = exit_code_of(error)
        life.finished_ns = time.time_ns()
        for client in container.attaching:
            client.tell(False)
        container.attaching = []
        self._core.save(container)
        container.exits.fire(Ended(life.exit_code, ""))
        self._core.spawn(self.on_failed(container), "after a failed start")

    @staticmethod
    def _words(container: Container, error: Exception) -> Exception:
        if not isinstance(error, StartFailed):
            return error
        return CannotStart(
            f"failed to start container {container.short}: {start_sentence(container.record.process.args, error)}"
        )

    async def end(self, container: Container) -> None:
        """Kill what lives and wait for its end; no restart follows."""
        self._cancel_restart(container)
        container.life.stopped_by_user = True
        if container.state is State.RESTARTING:
            async with container.lock:  # a restart that had it may have made it run
                if container.state is State.RESTARTING:
                    container.life.state = State.EXITED
        if container.state.is_live:
            await self._end_by(container, signal.SIGKILL, 0)

    async def stop(self, container: Container, timeout_s: int | None = None, text: str = "") -> None:
        """Ask by a signal, else the container's stop signal, then kill after `timeout_s` (-1: never). Raises NotModified when it is
        stopped, Invalid for a bad signal."""
        number = signal_number(text) if text else stop_signal(container)
        was_waiting = container.state is State.RESTARTING
        self._cancel_restart(container)
        if was_waiting:
            async with container.lock:
                if container.state is State.RESTARTING:
                    container.life.state = State.EXITED
                    container.life.stopped_by_user = True
                    self._core.save(container)
                    await self.joining.leave(container)
                    container.exits.fire(Ended(container.life.exit_code))
                    return
        if not container.state.is_live:
            container.life.stopped_by_user = True
            self._core.save(container)
            raise NotModified("The container is stopped.")
        if timeout_s is None:
            own = container.record.config.stop_timeout_s
            timeout_s = STOP_TIMEOUT_S if own is None else own
        container.life.stopped_by_user = True
        self._core.save(container)
        await self._end_by(container, number, timeout_s)
        self._core.emit(container, "stop")

    async def _end_by(self, container: Container, signum: int, timeout_s: int) -> None:
        ended = container.exits.subscribe()
        if container.state is State.PAUSED:
            await self.unpause(container)
        self._send(container, signum)
        if signum != signal.SIGKILL:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if timeout_s < 0 else timeout_s):
                    await asyncio.shield(ended)
                    return
            self._send(container, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_PATIENCE_S):
                await ended
                return
        raise EngineFault(
            f"Container {container.short} did not end {KILL_PATIENCE_S:g} s after SIGKILL.",
            "A process in uninterruptible sleep holds it; look for a hanging disk.",
        )

    async def restart(self, container: Container, timeout_s: int | None = None, text: str = "") -> None:
        """Stop, then start."""
        with suppress(NotModified):
            await self.stop(container, timeout_s, text)
        await self.start(container)
        self._core.emit(container, "restart")

    def kill(self, container: Container, text: str = "") -> None:
        """Send a signal to the container's first process. Raises Conflict when it does not run, Invalid for a bad signal."""
        number = signal_number(text or "KILL")
        if not container.state.is_live:
            raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running.")
        if number in (signal.SIGKILL, stop_signal(container)):
            container.life.stopped_by_user = True
        self._send(container, number)
        self._core.emit(container, "kill", signal=str(number))

    def _send(self, container: Container, number: int) -> None:
        if container.init is None:
            raise Conflict(f"Container {container.short} has no process.")
        container.init.kill(number)

    async def pause(self, container: Container) -> None:
        """Freeze all processes. Raises Conflict unless it runs."""
        async with container.lock:
            if container.state is not State.RUNNING:
                raise Conflict(f"Container {container.id} is not running.")
            await asyncio.to_thread(self._core.cgroups.freeze, container.cgroup, frozen=True)
            container.life.state = State.PAUSED
        self._core.emit(container, "pause")

    async def unpause(self, container: Container) -> None:
        """Let a frozen container go on. Raises Conflict unless it is paused."""
        async with container.lock:
            if container.state is not State.PAUSED:
                raise Conflict(f"Container {container.id} is not paused.")
            await asyncio.to_thread(self._core.cgroups.freeze, container.cgroup, frozen=False)
            container.life.state = State.RUNNING
        self._core.emit(container, "unpause")

    def _cancel_restart(self, container: Container) -> None:
        if container.restart_task and not container.restart_task.done():
            container.restart_task.cancel()
        container.restart_task = None


def log_options(container: Container) -> LogOptions:
    """The container's log limits as the monitor takes them."""
    resources = container.record.host.resources
    return LogOptions(rate_bps=resources.log_rate, total_bytes=resources.log_size)


def exit_code_of(error: Exception) -> int:
    """Docker's exit status of a start that failed: 127 not found, 126 not to be executed, else 128."""
    number = error.errno if isinstance(error, StartFailed) else 0
    return {2: 127, 13: 126, 8: 126, 20: 126, 21: 126}.get(number, 128)


def start_sentence(args: tuple[str, ...], error: StartFailed) -> str:
    """The failure in words from which Docker's clients derive their exit status."""
    words = {
        2: "executable file not found in $PATH" if "/" not in args[0] else "no such file or directory",
        13: "permission denied",
    }
    reason = words.get(error.errno, error.text) if "exec" in error.step else error.text
    if "exec" in error.step:
        return f'exec: "{args[0][:200]}": {reason}'
    return f"{error.step}: {error.text}"


def pid_of(container: Container) -> int:
    """The host's pid of the container's first process; 0 when it does not run."""
    return container.init.pid if container.init and container.state.is_live else 0
