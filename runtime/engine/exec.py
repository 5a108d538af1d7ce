"""Further programs in running containers: `docker exec`."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runtime.engine import execrecords
from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.detachkeys import parse_keys
from runtime.engine.errors import Conflict, Forbidden, Invalid, NotFound
from runtime.engine.execrecords import ExecRecord
from runtime.engine.fields import Fields
from runtime.engine.lifecycle import exit_code_of, start_sentence
from runtime.engine.process import environment
from runtime.kernel.process import ProcessRef
from runtime.oci.client import ExecRequest, Launched, StartFailed, adopt_exec
from runtime.oci.execution import end as end_of_exec

KEPT = 256  # ended execs that `inspect` still answers for


@dataclass(slots=True, kw_only=True)
class Exec:
    """One exec. `exit_code` is None until it ended."""

    id: str
    container: Container
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    stdin: bool
    stdout: bool
    stderr: bool
    attach: Path
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    no_new_privileges: bool | None = None
    detach_keys: bytes = b""
    probe: bool = False
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    launched: Launched | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class ExecFailed(Exception):
    """The program could not be started; `text` is for the client's stream, `code` for its exit status."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Execs:
    """All execs of the engine; the ended ones are forgotten oldest first."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._all: OrderedDict[str, Exec] = OrderedDict()

    def get(self, identity: str) -> Exec:
        """The exec; raises NotFound."""
        found = self._all.get(identity)
        if found is None:
            raise NotFound(f"No such exec instance: {identity[:64]}")
        return found

    def of(self, container: Container) -> list[str]:
        """Ids of the execs that run in a container."""
        return [e.id for e in self._all.values() if e.container is container and e.running]

    def probe(self, container: Container, args: tuple[str, ...]) -> Exec:
        """One for a health check: it ends with the engine, and no event tells of it, for they would crowd out all others.

        Raises Conflict, Invalid."""
        return self.create(container, {"Cmd": [*args], "AttachStdout": True, "AttachStderr": True}, probe=True)

    def forget(self, found: Exec) -> None:
        """Answer no more for it."""
        self._all.pop(found.id, None)

    def create(self, container: Container, body: object, *, probe: bool = False) -> Exec:
        """Take an exec request down; nothing runs yet. Raises Conflict unless the container runs, Invalid, Forbidden."""
        check_running(container)
        f = Fields(body, "body")
        if f.flag("Privileged") and not self._core.config.trusted:
            raise Forbidden("A privileged exec is refused.", "Only an engine started with --trusted grants it.")
        args = f.texts("Cmd") or ()
        if not args or not args[0]:
            raise Invalid("No exec command specified.")
        process = container.record.process
        identity = secrets.token_hex(32)
        name, tty = container.record.config.hostname or container.short, f.flag("Tty")
        env = environment(process.env, f.texts("Env", limit=4096) or (), name, tty=tty)
        found = Exec(
            id=identity,
            container=container,
            args=args,
            env=env,
            cwd=f.text("WorkingDir") or process.cwd,
            user=f.text("User", limit=256),
            stdin=f.flag("AttachStdin"),
            stdout=f.flag("AttachStdout"),
            stderr=f.flag("AttachStderr"),
            attach=self._core.config.run / "attach" / f"x{identity[:11]}.sock",
            tty=tty,
            console_size=f.console_size(),
            detach_keys=parse_keys(f.text("DetachKeys", limit=256)),
            probe=probe,
        )
        self._all[identity] = found
        self._trim()
        self._emit(found, f"exec_create: {' '.join(args)}"[:512])
        return found

    def _emit(self, found: Exec, action: str, **extra: str) -> None:
        if not found.probe:
            self._core.emit(found.container, action, execID=found.id, **extra)

    def _trim(self) -> None:
        excess = len(self._all) - KEPT
        for identity in [i for i, e in self._all.items() if not e.running][: max(0, excess)]:
            del self._all[identity]

    async def open(self, found: Exec, *, detach: bool) -> Launched:
        """Make it, up to its gate: the client attaches, then `run`. Raises Conflict, ExecFailed."""
        check_running(found.container)
        if found.started:
            raise Conflict(f"exec {found.id[:12]} has already run.")
        found.started = True
        request = ExecRequest(
            id=found.id,
            bundle=found.container.folder,
            attach=found.attach,
            args=found.args,
            env=found.env,
            cwd=found.cwd,
            user=found.user,
            stdin=found.stdin,
            detach=detach,
            no_new_privileges=found.no_new_privileges,
            terminal=found.tty,
            console_size=found.console_size,
            bound=found.probe,
        )
        try:
            found.launched = await self._core.launcher.exec(request)
        except StartFailed as error:
            raise self._failed(found, error) from error
        await self._resize_to(found, request.console_size)
        return found.launched

    async def _resize_to(self, found: Exec, known: tuple[int, int]) -> None:
        """Give the terminal the size it was asked to have since it was said to have the `known` one."""
        while found.launched and found.console_size != known:
            known = found.console_size
            with suppress(OSError):  # it has ended meanwhile
                await found.launched.resize(*known)

    async def resize(self, found: Exec, height: int, width: int) -> None:
        """Say how many characters its terminal has; before the start it is what it will begin with. Raises Conflict."""
        if found.exit_code is not None:
            raise Conflict(f"exec {found.id[:12]} has ended.")
        known, found.console_size = found.console_size, (height, width)
        await self._resize_to(found, known)

    async def run(self, found: Exec) -> None:
        """Open the gate and watch for the end. Raises ExecFailed."""
        launched = found.launched
        if launched is None:
            raise Conflict(f"exec {found.id[:12]} was not opened.")
        if not found.probe:
            with suppress(
                OSError
            ):  # it has ended meanwhile, or the disk is full: then the next engine will not know of it
                _record(found, launched).write(found.container.folder)
        try:
            await launched.release()
        except StartFailed as error:
            launched.close()
            execrecords.forget(found.container.folder, found.id)
            raise self._failed(found, error) from error
        found.running, found.pid = True, launched.init_pid
        self._emit(found, f"exec_start: {' '.join(found.args)}"[:512])
        self._core.spawn(self._watch(found, launched), f"exec {found.id[:12]}")

    def _failed(self, found: Exec, error: StartFailed) -> ExecFailed:
        found.exit_code = exit_code_of(error)
        found.launched = None
        found.done.set()
        text = f"exec failed: unable to start container process: {start_sentence(found.args, error)}"
        return ExecFailed(text, found.exit_code)

    async def _watch(self, found: Exec, launched: Launched) -> None:
        end = await launched.wait()
        launched.close()
        found.launched = None
        found.exit_code, found.running = end.code, False
        found.done.set()
        await asyncio.to_thread(execrecords.forget, found.container.folder, found.id)
        self._emit(found, "exec_die", exitCode=str(end.code))

    def adopt(self) -> None:
        """Take on what an earlier engine let run: those that run still are watched, the end of the others is read."""
        for container in self._core.registry:
            running = set()
            for record in execrecords.read_all(container.folder):
                found = _found_again(container, record)
                self._all[found.id] = found
                launched = found.launched = adopt_exec(
                    container.folder, record.id, record.monitor, record.pid, found.attach
                )
                if launched:
                    found.running = True
                    running.add(found.id)
                    self._core.spawn(self._watch(found, launched), f"exec {found.id[:12]}")
                    continue
                end = end_of_exec(container.folder, record.id)
                found.exit_code = end.code
                found.done.set()
                self._emit(found, "exec_die", exitCode=str(end.code))
            execrecords.sweep(container.folder, running)
        self._trim()

    @staticmethod
    async def ended(found: Exec) -> None:
        """Return when the exec has ended and its exit code is known."""
        await found.done.wait()


def check_running(container: Container) -> None:
    """Raise Conflict in Docker's words unless a further program may be run."""
    if container.state.value == "paused":
        raise Conflict(f"Container {container.name} is paused, unpause the container before exec.")
    if not container.state.can_exec:
        raise Conflict(f"container {container.id} is not running")


def _record(found: Exec, launched: Launched) -> ExecRecord:
    return ExecRecord(
        id=found.id,
        args=found.args,
        user=found.user,
        tty=found.tty,
        stdin=found.stdin,
        stdout=found.stdout,
        stderr=found.stderr,
        attach=str(found.attach),
        pid=launched.init_pid,
        monitor=ProcessRef.of(launched.monitor_pid),
    )


def _found_again(container: Container, record: ExecRecord) -> Exec:
    return Exec(
        id=record.id,
        container=container,
        args=record.args,
        env=(),
        cwd="",
        user=record.user,
        stdin=record.stdin,
        stdout=record.stdout,
        stderr=record.stderr,
        attach=Path(record.attach),
        tty=record.tty,
        started=True,
        pid=record.pid,
    )
