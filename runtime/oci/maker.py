"""The maker: a short-lived child of the monitor in which one container is made; forked when asked for, or parked ahead.

It clones the init with CLONE_PARENT, so that it is the monitor's child; what making costs in memory goes with the maker, and
the monitor never enters the tenant's network namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault
from runtime.kernel import process
from runtime.kernel.cgroups import detect
from runtime.oci import handshake
from runtime.oci.crew import Crew
from runtime.oci.lifecycle import Created, create, isolated, remove_group
from runtime.oci.program import Streams
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG, STATE, State


@dataclass(frozen=True, slots=True)
class Maker:
    """A maker that waits for its order; it ends when the socket to it closes."""

    pid: int
    sock: socket.socket

    def waits(self) -> bool:
        """Whether it is still there. Asks for its end, since its socket may be open for a moment longer in its helper."""
        return process.runs(self.pid)

    def order(
        self, folder: str, pipes: Streams, control: socket.socket, attach: str, complete: int, *, go: bool
    ) -> None:
        """Have it make the container of a bundle. It gets the descriptors; `complete` is as in `Crew.order`, `go` in `create`."""
        fds = [control.fileno(), pipes.stdout, pipes.stderr, *(fd for fd in (pipes.stdin, complete) if fd >= 0)]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            handshake.send_packet(self.sock, json.dumps([folder, attach, pipes.stdin >= 0, go]).encode(), fds)

    def made(self, folder: str) -> Created:
        """Wait for what it made. Raises StartFailed with everything undone."""
        with self.sock:
            message, got = handshake.receive(self.sock)
        if isinstance(message, handshake.Made):
            pidfd, gate, *terminal = got
            return Created(
                message.init_pid, pidfd, socket.socket(fileno=gate), message.cgroup, message.loop, list(message.notes),
                message.children, *terminal,
            )  # fmt: skip
        if isinstance(message, handshake.Failed):
            _wait_for_all()
            raise message.error()
        group = isolated(Spec.read(Path(folder, CONFIG))).linux.cgroups_path
        detect().kill(group)  # an init that runs already would not end by itself
        _wait_for_all()
        remove_group(detect(), group)
        Path(folder, STATE).unlink(missing_ok=True)
        raise handshake.StartFailed("2 maker", 0, "the maker was killed")

    def dismiss(self) -> None:
        """Give up a parked one, and wait for its end."""
        self.sock.close()
        _wait_for_all()


def _wait_for_all() -> None:
    """Children of the monitor: the maker, and the init, that sees its gate close."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def park(gather: Callable[[], Crew | None] | None = None) -> Maker:
    """Fork a maker. `gather` is what it does while it waits; it may leave it with a crew."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monitor = os.getpid()

    def child() -> None:
        ours.close()
        crew = gather() if gather else None
        order, fds = handshake.receive_packet(theirs)
        if order:
            _carry_out(theirs, monitor, order, fds, crew)
        elif crew:
            crew.dismiss()

    pid = process.fork(child)
    theirs.close()
    return Maker(pid, ours)


def _carry_out(sock: socket.socket, monitor: int, order: bytes, fds: list[int], crew: Crew | None) -> None:
    """In the maker: make the container, write its state, hand it over to the `monitor` (a pid); or say what failed."""
    folder, attach, has_stdin, go = json.loads(order)
    control, stdout, stderr, *rest = fds
    bundle = Path(folder)
    streams = Streams(rest.pop(0) if has_stdin else -1, stdout, stderr)

    def made(created: Created) -> None:
        message = handshake.Made(created.pid, created.cgroup, created.loop, tuple(created.notes), created.children)
        terminal = [created.terminal] if created.terminal >= 0 else []
        handshake.send(sock, message, [created.pidfd, created.gate.fileno(), *terminal])

    try:
        with socket.socket(fileno=control) as other:
            create(
                bundle, streams, other, complete=rest[0] if rest else -1, parked=crew, go=go,
                record=lambda created: _write_state(bundle, monitor, created, attach), made=made,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeFault) as error:
        (bundle / STATE).unlink(missing_ok=True)
        fault = RuntimeFault(str(error)) if isinstance(error, ValueError) else error
        handshake.try_send(sock, handshake.Failed.of("2 maker", fault))


def _write_state(bundle: Path, monitor: int, created: Created, attach: str) -> None:
    """Raises ProcessLookupError when the monitor was killed: its successor as our parent is none."""
    State(
        id=bundle.name,
        monitor=process.ProcessRef.of(monitor),
        init=process.ProcessRef.of(created.pid),
        cgroup=created.cgroup,
        attach=attach,
        loop=created.loop,
        created_ns=time.time_ns(),
    ).write(bundle)
