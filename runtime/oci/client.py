"""The engine's side of the launcher: start it, ask for containers and execs, open their gates, wait for their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.kernel.process import ProcessRef
from runtime.oci import execution, handshake, launcher
from runtime.oci.ends import reap_orphan
from runtime.oci.handshake import StartFailed
from runtime.oci.requests import ExecRequest, LaunchRequest, LogOptions
from runtime.oci.state import EXIT, STATE, ExitRecord, State

__all__ = [
    "ExecRequest",
    "LaunchRequest",
    "Launched",
    "LauncherClient",
    "LogOptions",
    "StartFailed",
    "Underway",
    "adopt",
]

RESTART_PAUSE_S = 1.0  # after a launcher that could not be started
_COMPLETE = b"1"
_ROOT = Path(__file__).resolve().parents[2]


class Launched:
    """A container or exec: made and waiting at its gate, running, or ended. Close it to let go of its descriptors."""

    def __init__(
        self,
        ready: handshake.Ready,
        pidfd: int,
        record: Path,
        control: socket.socket | None,
        attach: Path,
        *,
        gate_open: bool = False,
    ) -> None:
        self.monitor_pid = ready.monitor_pid
        self.monitor_pidfd = pidfd
        self.init_pid = ready.init_pid
        self.loop = ready.loop
        self.attach = attach
        self._record = record
        self._control = control
        self.gate_open = gate_open
        self._end: asyncio.Task[ExitRecord] | None = None

    async def release(self) -> int:
        """Open the gate; returns the start time (ns since 1970) once the program runs. Raises StartFailed, all undone."""
        control = self._control
        if control is None:
            raise StartFailed("5 gate", 0, "the gate is open already")
        if not self.gate_open:
            handshake.try_send(control, handshake.Go())
        message, _ = await _receive(control)
        if isinstance(message, handshake.Started):
            return message.at_ns
        await self._gone()
        if isinstance(message, handshake.Failed):
            raise message.error()
        raise StartFailed("5 gate", 0, "the monitor ended before the program ran")

    async def wait(self) -> ExitRecord:
        """The end: returns when the monitor has gone. If it was killed, ends the container; then code -1, unknown."""
        if self._end is None:
            self._end = asyncio.create_task(self._wait())
        return await asyncio.shield(self._end)

    async def _wait(self) -> ExitRecord:
        await _readable(self.monitor_pidfd)
        if self._record.name == EXIT:  # a monitor killed after it wrote the record has left its groups
            return await asyncio.to_thread(reap_orphan, self._record.parent)
        return execution.end(self._record.parent.parent, self._record.stem)

    async def abandon(self) -> None:
        """Give up before the gate opened, or a `bound` exec at any time; all that was acquired is undone when this returns."""
        if self._control is not None:
            self._control.close()
            self._control = None
        await self._gone()

    async def _gone(self) -> None:
        await _readable(self.monitor_pidfd)
        bundle = self._record.parent
        if self._record.name == EXIT and (bundle / STATE).exists():  # the monitor was killed before it had undone all
            await asyncio.to_thread(reap_orphan, bundle)
            for name in (STATE, EXIT):
                (bundle / name).unlink(missing_ok=True)
        self.close()

    async def set_log(self, log: LogOptions) -> None:
        """Change log limits of a running container. Raises OSError when the monitor has gone."""
        await self._tell({"log": asdict(log)})

    async def resize(self, height: int, width: int) -> None:
        """Say how many characters its terminal has, if it has one. Raises OSError when the monitor has gone."""
        await self._tell({"size": [height, width]})

    async def _tell(self, order: dict[str, Any]) -> None:
        _reader, writer = await _greet(self.attach, order)
        writer.close()
        await writer.wait_closed()

    def close(self) -> None:
        """Let go of descriptors; the container lives on. Not while `wait` is under way."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self.monitor_pidfd >= 0:
            os.close(self.monitor_pidfd)
            self.monitor_pidfd = -1


class Underway:
    """A launch that has begun while its bundle is still being filled: `complete` it or `abandon` it."""

    def __init__(self, client: LauncherClient, request: LaunchRequest, control: socket.socket, word: int) -> None:
        self._client = client
        self._request = request
        self._control: socket.socket | None = control
        self._word = word

    async def complete(self) -> Launched:
        """The bundle and the network are ready: make the container up to its gate. Raises StartFailed, all undone."""
        control, self._control = self._control, None
        assert control
        self._say(_COMPLETE)
        return await self._client.reached("launch", self._request, control, self._request.bundle / EXIT)

    async def abandon(self) -> None:
        """Give up before the bundle was complete; all that was acquired is undone when this returns. Nothing after that."""
        control, self._control = self._control, None
        if control is None:
            return
        self._say(b"")
        with control:
            while (await _receive(control))[0]:
                pass

    def _say(self, word: bytes) -> None:
        try:
            if word:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._word, word)
        finally:
            os.close(self._word)


class LauncherClient:
    """One launcher process, started on demand and again when it dies. For one event loop."""

    def __init__(self, *, log_file: Path | None = None, mark: str = "") -> None:
        """`log_file` takes what launcher and monitors say when they fail (default: this process's stderr); `mark` is their last
        argument, by which they are known as ours when nobody is left who started them."""
        self._log_file = log_file
        self._mark = mark
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The launcher's process id, None before the first start."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the launcher now, to have it warm; nothing happens while one runs."""
        async with self._starting:
            if self._alive():
                return
            self._forget()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            errors = self._log_file.open("ab") if self._log_file else None
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", launcher.BOOT, str(_ROOT), str(theirs.fileno()), self._mark),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env={"PATH": os.defpath},
                )
            finally:
                theirs.close()
                if errors:
                    errors.close()
            await _readable(ours.fileno())
            if not ours.recv(64):
                ours.close()
                raise StartFailed("2 launcher", 0, "the launcher ended as soon as it was started")
            self._socket = ours

    async def keep(self) -> None:
        """Start the launcher anew each time it dies, so that the next start finds it warm. Runs until cancelled."""
        while True:
            try:
                await self.start()
            except (OSError, StartFailed):
                await asyncio.sleep(RESTART_PAUSE_S)  # the next start of a container says why
            else:
                process = self._process
                if process:
                    await process.wait()

    def _forget(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    async def launch(self, request: LaunchRequest) -> Launched:
        """Make a container up to its gate. Raises StartFailed(step, errno, text) with everything undone."""
        return await (await self.begin(request)).complete()

    async def begin(self, request: LaunchRequest) -> Underway:
        """Set processes to work on a container whose `config.json` and network namespace are there, and nothing more yet."""
        (request.bundle / EXIT).unlink(missing_ok=True)
        told, word = os.pipe()
        try:
            control = await self._call("launch", request, [told])
        except BaseException:
            os.close(word)
            raise
        finally:
            os.close(told)
        return Underway(self, request, control, word)

    async def park(self, crew: str, netns: int, id_base: int) -> None:
        """Prepare a container ahead of its launch: its processes, its namespaces and what all containers have mounted.

        It is for the one with ids from `id_base` in the network namespace `netns` (a descriptor) whose launch names `crew`.
        It replaces the one before and dies with the launcher. Raises OSError when there is none.
        """
        await self.start()
        assert self._socket
        packet = json.dumps({"op": "park", "crew": crew, "id_base": id_base}).encode()
        handshake.send_packet(self._socket, packet, [netns])

    async def exec(self, request: ExecRequest) -> Launched:
        """Make a further process in a container up to its gate. Raises StartFailed."""
        record = request.bundle / execution.EXEC_FOLDER / f"{request.id}.json"
        return await self.reached("exec", request, await self._call("exec", request), record)

    async def reached(
        self, op: str, request: LaunchRequest | ExecRequest, control: socket.socket, record: Path, *, again: bool = True
    ) -> Launched:
        """What a monitor that was called says on `control`: it is at the gate. Calls another when the launcher died.

        `record` is where its end will be written. Raises StartFailed, all undone.
        """
        try:
            message, fds = await _receive(control)
            if isinstance(message, handshake.Failed):
                await _receive(control)  # its end: everything is undone
        except BaseException:
            control.close()
            raise
        if isinstance(message, handshake.Ready):
            gate_open = isinstance(request, LaunchRequest) and request.go
            return Launched(message, fds[0], record, control, request.attach, gate_open=gate_open)
        control.close()
        if isinstance(message, handshake.Failed):
            raise message.error()
        if op == "launch":
            await asyncio.to_thread(reap_orphan, request.bundle)
            record.unlink(missing_ok=True)
        request.attach.unlink(missing_ok=True)
        if again and not self._alive():
            return await self.reached(op, request, await self._call(op, request), record, again=False)
        raise StartFailed("2 monitor", 0, "the monitor ended before the gate was reached")

    async def _call(self, op: str, request: LaunchRequest | ExecRequest, more: Sequence[int] = ()) -> socket.socket:
        """Have a monitor begin; returns the socket to it. `more` are descriptors for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            await self._send(op, request, theirs, more)
        except BaseException:
            ours.close()
            raise
        return ours

    def _alive(self) -> bool:
        """Whether the launcher still holds its end."""
        try:
            return self._socket is not None and self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def _send(
        self, op: str, request: LaunchRequest | ExecRequest, theirs: socket.socket, more: Sequence[int]
    ) -> None:
        body = os.memfd_create("request")
        try:
            os.write(body, json.dumps(asdict(request), default=str).encode())
            crew = request.crew if isinstance(request, LaunchRequest) else ""
            packet = json.dumps({"op": op, "crew": crew}).encode()
            for attempt in (1, 2):
                await self.start()
                assert self._socket
                try:
                    handshake.send_packet(self._socket, packet, [theirs.fileno(), body, *more])
                    return
                except (BrokenPipeError, ConnectionResetError):
                    self._forget()
                    if attempt == 2:
                        raise
        finally:
            os.close(body)
            theirs.close()

    async def close(self) -> None:
        """End the launcher; containers and their monitors live on."""
        self._forget()
        if self._process:
            await self._process.wait()


def adopt(bundle: Path) -> Launched | None:
    """The living container of a bundle, None when its monitor has gone (then see `ends.reap_orphan`)."""
    state = State.read(bundle)
    if state is None or state.monitor is None or (pidfd := state.monitor.open()) is None:
        return None
    ready = handshake.Ready(state.monitor.pid, state.init.pid, state.loop)
    return Launched(ready, pidfd, bundle / EXIT, None, Path(state.attach))


def adopt_exec(bundle: Path, identity: str, monitor: ProcessRef, pid: int, attach: Path) -> Launched | None:
    """An exec whose gate an earlier engine opened, `pid` its program; None when its monitor has gone (then see `execution.end`)."""
    pidfd = monitor.open()
    if pidfd is None:
        return None
    ready = handshake.Ready(monitor.pid, pid)
    return Launched(ready, pidfd, bundle / execution.EXEC_FOLDER / f"{identity}.json", None, attach)


async def attach_stream(
    path: Path, *, stdin: bool, stdout: bool, stderr: bool, raw: bool = False
) -> tuple[StreamReader, StreamWriter]:
    """Connect to a monitor's attach socket: (reader, writer), acknowledged, so that nothing after it is missed.

    What is read is Docker's framed stream (byte 0: 1 stdout, 2 stderr; bytes 4 to 7 length, big endian), or the bytes
    alone when `raw`; what is written is stdin, closed by `write_eof`, which closes no terminal.
    """
    return await _greet(path, {"stdin": stdin, "stdout": stdout, "stderr": stderr, "raw": raw})


async def _greet(path: Path, hello: dict[str, Any]) -> tuple[StreamReader, StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(json.dumps(hello).encode() + b"\n")
    if not await reader.readline():
        writer.close()
        raise ConnectionResetError("the monitor refused or has gone")
    return reader, writer


async def _readable(watched: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    fd = os.dup(watched)  # a loop has one reader a descriptor, and several may wait for one monitor

    def fire() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(fd, fire)
    try:
        await future
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _receive(sock: socket.socket) -> tuple[handshake.Message | None, list[int]]:
    while True:
        await _readable(sock.fileno())
        with contextlib.suppress(BlockingIOError):
            return handshake.receive(sock)
