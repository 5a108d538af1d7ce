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
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.kernel import process
from runtime.kernel.cgroups import detect
from runtime.oci import handshake
from runtime.oci.lifecycle import Created, checked, create, remove_group, undo
from runtime.oci.program import Streams
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG, State


@dataclass(frozen=True, slots=True)
class Maker:
    """A maker that waits for its order; it ends when the socket to it closes."""

    pid: int
    sock: socket.socket


def park(warm: Callable[[], None] | None = None) -> Maker:
    """Fork a maker. `warm` is what it does while it waits, to have its memory its own before there is any hurry."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def child() -> None:
        ours.close()
        if warm:
            warm()
        order, fds = handshake.receive_packet(theirs)
        if order:
            _carry_out(theirs, order, fds)

    pid = process.fork(child)
    theirs.close()
    return Maker(pid, ours)


def make(maker: Maker, folder: str, pipes: Streams, control: socket.socket, attach: str) -> Created:
    """Called by the monitor: have its maker make the container of a bundle. Raises StartFailed with everything undone."""
    fds = [fd for fd in (control.fileno(), pipes.stdout, pipes.stderr, pipes.stdin) if fd >= 0]
    message, got = None, list[int]()
    with maker.sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        handshake.send_packet(maker.sock, json.dumps([folder, attach]).encode(), fds)
        message, got = handshake.receive(maker.sock)
    os.waitpid(maker.pid, 0)
    if isinstance(message, handshake.Made):
        gate = socket.socket(fileno=got[1])
        return Created(message.init_pid, got[0], gate, message.cgroup, message.loop, list(message.notes))
    with contextlib.suppress(ChildProcessError):
        while True:  # the init, that sees its gate close
            os.waitpid(-1, 0)
    if isinstance(message, handshake.Failed):
        raise message.error()
    remove_group(detect(), checked(Spec.read(Path(folder, CONFIG))).linux.cgroups_path)
    raise handshake.StartFailed("2 maker", 0, "the maker was killed")


def _carry_out(monitor: socket.socket, order: bytes, fds: list[int]) -> None:
    """In the maker: make the container, write its state, hand it over; or say what failed."""
    folder, attach = json.loads(order)
    control, stdout, stderr, *rest = fds
    try:
        bundle = Path(folder)
        spec = checked(Spec.read(bundle / CONFIG))
        with socket.socket(fileno=control) as other:
            created = create(spec, bundle, Streams(rest[0] if rest else -1, stdout, stderr), other)
        try:
            _write_state(bundle, created, attach)
        except OSError:
            undo(created)
            raise
        message = handshake.Made(created.pid, spec.linux.cgroups_path, created.loop, tuple(created.notes))
        handshake.send(monitor, message, [created.pidfd, created.gate.fileno()])
    except (OSError, ValueError, RuntimeFault) as error:
        fault = RuntimeFault(str(error)) if isinstance(error, ValueError) else error
        handshake.send(monitor, handshake.Failed.of("2 maker", fault))


def _write_state(bundle: Path, created: Created, attach: str) -> None:
    State(
        id=bundle.name,
        monitor=process.ProcessRef.of(os.getppid()),
        init=process.ProcessRef.of(created.pid),
        cgroup=created.cgroup,
        attach=attach,
        loop=created.loop,
        created_ns=time.time_ns(),
    ).write(bundle)
