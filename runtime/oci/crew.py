"""A crew: an init and a helper that wait for their order, in namespaces that are made and mapped; gathered when asked for, or parked.

What every container has (`/dev`, `/proc`, `/sys` with their masks) is mounted ahead by a parked crew's init (stage.py). The init
is the process cloned here on v1. On v2, where only a clone lands in a group without a wait for readers (cgroups, `doors`), it is
a child of that process, made when the group is there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault
from runtime.kernel import namespaces, process, syscalls
from runtime.kernel.cgroups import detect
from runtime.kernel.cgroups.v2 import V2
from runtime.oci import handshake, init, rootfs, stage
from runtime.oci.nsplan import NamespacePlan
from runtime.oci.program import Streams
from runtime.oci.spec import Hooks, IdMapping, Spec
from runtime.oci.state import CONFIG, ROOT
from runtime.storage.driver import RootPlan


class Attendant(Protocol):
    """What a maker does for an init that asks."""

    def attend(self, message: handshake.Message, fds: list[int]) -> handshake.Message | None:
        """Do it, close the descriptors; what is returned is sent back."""


@dataclass(slots=True)
class TerminalHolder:
    """The Attendant of the engine's containers: all that they ask is that somebody holds their terminal, here by `fd`."""

    fd: int = -1

    def attend(self, message: handshake.Message, fds: list[int]) -> handshake.Message | None:
        """crew.Attendant."""
        if not isinstance(message, handshake.Terminal):
            raise handshake.StartFailed("4 gate", 0, f"nobody is there for a {type(message).__name__.lower()}")
        (self.fd,) = fds
        return None


@dataclass(frozen=True, slots=True)
class Standalone:
    """Of a container that no monitor looks after: its init is this process's child, and waits at the listening socket `gate`.

    `pivot` and `keyring` are as in `handshake.Order`.
    """

    gate: int
    attendant: Attendant
    pivot: bool = True
    keyring: bool = True


@dataclass(frozen=True, slots=True)
class Crew:
    """`init` is the process that becomes the container's first or clones it; `gate` is the socket to it.

    `helper` takes its order, and says how it went, on `helpers`. `net` is the inode of a network namespace that was joined,
    0 for the host's, -1 for one of the container's own.
    """

    init: int
    pidfd: int
    gate: socket.socket
    helper: int
    helpers: socket.socket
    ahead: stage.Plan
    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    net: int
    plan: NamespacePlan

    def fits(self, spec: Spec) -> bool:
        """Whether this crew can make that container: its ids, its network, and what is mounted already."""
        network = spec.linux.namespace("network")
        net = 0 if network is None else os.stat(network.path).st_ino if network.path else -1  # noqa: PTH116
        mapped = (self.uids, self.gids) == (spec.linux.uid_mappings, spec.linux.gid_mappings)
        same = mapped and net == self.net and NamespacePlan.of(spec, detect()) == self.plan
        return same and spec.hooks == Hooks() and stage.ahead(spec, detect()) == self.ahead

    def waits(self) -> bool:
        """Whether both are still there: one that was parked may have been killed meanwhile."""
        return handshake.is_open(self.gate) and process.runs(self.helper)

    def order(self, bundle: Path, streams: Streams, complete: int, alone: Standalone | None = None) -> None:
        """Set both to work on a bundle: the init reads the specification, the helper makes the root.

        `complete` is a pipe that tells when the bundle is: something in it, or its end for a start that was given up; -1, it is.
        The start gate is this crew's own socket, but for a container that stands `alone`.
        """
        config = os.open(bundle / CONFIG, os.O_RDONLY | os.O_CLOEXEC)
        try:
            own(streams, self.uids[0].host_id if self.uids else _root_of(self.init))
            message, gate = handshake.Order(streams.stdin >= 0), -1
            if alone:
                further, gate = tuple(streams.further), alone.gate
                message = handshake.Order(streams.stdin >= 0, True, further, alone.pivot, alone.keyring)
            ends = [config, streams.stdout, streams.stderr, *(fd for fd in (streams.stdin, gate) if fd >= 0)]
            handshake.send(self.gate, message, [*ends, *streams.further.values()])
        finally:
            os.close(config)
        given = [complete] if complete >= 0 else []
        handshake.send_packet(self.helpers, os.fsencode(bundle), given)  # whose mounts the init expects after its order

    def admit(self, group: str) -> None:
        """Let the init into its groups, which are made and limited; "" leaves it where its maker is."""
        cgroups = detect()
        doors = [] if not group else [cgroups.open(group)] if isinstance(cgroups, V2) else cgroups.doors(group)
        try:
            handshake.send(self.gate, handshake.Groups(), doors)
        finally:
            for door in doors:
                os.close(door)

    def admitted(self, control: socket.socket | None) -> tuple[int, int]:
        """Pid and pidfd of the container's first process. Raises StartFailed, also when `control` closes first."""
        if not self.plan.two_steps:
            return self.init, self.pidfd
        message, fds = _await(self.gate, control)
        if not isinstance(message, handshake.Cloned):
            raise handshake.StartFailed("2 clone", 0, "the init ended before it was in its group")
        return message.init_pid, fds[0]

    def helped(self) -> str:
        """Wait until the root is made; the loop device's name, or "". Raises StartFailed."""
        message, _ = handshake.receive(self.helpers)
        if isinstance(message, handshake.Ready):
            return message.loop
        if isinstance(message, handshake.Failed):
            raise message.error()
        raise handshake.StartFailed("3 root", 0, "the helper that mounts the root file system ended early")

    def release_helper(self) -> None:
        """Wait for the helper's end, which no start should do: its mount namespace goes with it, under the kernel's one lock."""
        self.helpers.close()
        os.waitpid(self.helper, 0)

    def dismiss(self) -> None:
        """End both, whatever they do, and what they made."""
        self.gate.close()
        self.helpers.shutdown(socket.SHUT_WR)
        with contextlib.suppress(handshake.StartFailed):
            self.helped()
        self.release_helper()
        end(self.pidfd)


def gather(spec: Spec, ahead: stage.Plan = (), *, own_child: bool = False) -> Crew:
    """Clone the init and fork the helper; with `ahead`, wait until that is mounted. Raises StartFailed, all undone.

    Joins the sandbox's network namespace for good; the init becomes a child of this process's parent, or its `own_child`.
    Only for a process with one thread.
    """
    plan = NamespacePlan.of(spec, detect())
    with contextlib.ExitStack() as acquired:
        with step("2 network"):
            net = _enter_network(spec)
        with step("2 clone"):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            acquired.callback(ours.close)
            pid, pidfd = syscalls.clone3(plan.first_flags() | (0 if own_child else syscalls.CLONE_PARENT))
            if not pid:
                init.run(theirs, ahead, detect(), spec)
            acquired.callback(end, pidfd)
            theirs.close()
            if plan.by_itself:
                await_ready(ours)
        with step("3 ids"):
            _map(spec, pid)
            handshake.send(ours, handshake.Mapped())
        with step("3 root"):
            helper, helpers = _fork_helper(spec, pid, ours, ahead)
        crew = Crew(
            pid, pidfd, ours, helper, helpers, ahead, spec.linux.uid_mappings, spec.linux.gid_mappings, net, plan
        )  # fmt: skip
        acquired.pop_all()
        acquired.callback(crew.dismiss)
        if ahead:
            await_ready(ours, helpers)
        acquired.pop_all()
        return crew


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step that an error belongs to."""
    try:
        yield
    except (OSError, RuntimeFault) as error:
        raise handshake.Failed.of(name, error).error() from error


def await_ready(gate: socket.socket, control: socket.socket | None = None, attendant: Attendant | None = None) -> None:
    """Until the init has done what it can; raises StartFailed, also when `control` speaks or closes first."""
    while True:
        message, fds = _await(gate, control)
        if isinstance(message, handshake.Ready):
            return
        if message is None or attendant is None:
            raise handshake.StartFailed("4 gate", 0, "the init ended early: was it killed for want of memory?")
        answer = attendant.attend(message, fds)
        if answer:
            handshake.send(gate, answer)


def _await(gate: socket.socket, control: socket.socket | None) -> tuple[handshake.Message | None, list[int]]:
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    if control is not None:
        poll.register(control, select.POLLIN)
    if gate.fileno() not in dict(poll.poll()):
        raise handshake.StartFailed("4 gate", 0, "the start was given up")
    message, fds = handshake.receive(gate)
    if isinstance(message, handshake.Failed):
        raise message.error()
    return message, fds


def end(pidfd: int) -> None:
    """Kill a process and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll()
    with contextlib.suppress(ChildProcessError):  # in the maker it is the monitor's child
        process.wait_pidfd(pidfd)
    os.close(pidfd)


def own(streams: Streams, owner: int) -> None:
    """Give the program's pipe ends to the container's root; the init hands them on to its user."""
    for fd in (streams.stdin, streams.stdout, streams.stderr):
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, owner)


def _root_of(pid: int) -> int:
    """The host's id of user 0 in a process's user namespace, as /proc/PID/uid_map has it."""
    for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines():
        inside, outside, _count = line.split()
        if inside == "0":
            return int(outside)
    return 0


def _enter_network(spec: Spec) -> int:
    """Join the sandbox before the init is cloned, so that the namespace belongs to the host's user namespace."""
    network = spec.linux.namespace("network")
    if network is None:
        return 0
    if not network.path:
        return -1
    namespaces.join(Path(network.path), "network")
    return os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116


def _map(spec: Spec, pid: int) -> None:
    """Ids and clocks of the namespaces the first process has made."""
    for kind, mappings in (("uid", spec.linux.uid_mappings), ("gid", spec.linux.gid_mappings)):
        if mappings:
            namespaces.map_ids(pid, kind, [(m.container_id, m.host_id, m.size) for m in mappings])
    if spec.linux.time_offsets:
        offsets = {clock: (offset.secs, offset.nanosecs) for clock, offset in spec.linux.time_offsets.items()}
        namespaces.set_clocks(pid, offsets)


def _fork_helper(spec: Spec, init_pid: int, gate: socket.socket, ahead: stage.Plan) -> tuple[int, socket.socket]:
    """Step "3 root": the helper makes mounts and sends them to the init."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def helper() -> None:
        ours.close()
        try:
            userns = -1
            if spec.linux.namespace("user"):
                userns = os.open(f"/proc/{init_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            if ahead:
                _hand_over(gate, rootfs.host_mounts(spec))
                stage.rehearse(spec, ahead)
            order, complete = handshake.receive_packet(theirs)
            if not order:
                return
            bundle = Path(os.fsdecode(order))
            wanted = Spec.read(bundle / CONFIG)
            for pipe in complete:
                _await_complete(pipe, theirs)
            plan = RootPlan.read(bundle / ROOT) if (bundle / ROOT).exists() else None
            lent = {} if ahead else rootfs.host_mounts(wanted)
            handed, loop = rootfs.build(wanted, bundle, plan, userns)
            _hand_over(gate, lent | handed)
            handshake.send(theirs, handshake.Ready(0, 0, loop))
            handshake.receive_packet(theirs)  # its closing
        except (OSError, RuntimeFault) as error:
            handshake.try_send(theirs, handshake.Failed.of("3 root", error))

    pid = process.fork(helper)
    theirs.close()
    return pid, ours


def _await_complete(pipe: int, orders: socket.socket) -> None:
    """Until there is something in the pipe, which another helper may have to see too. Raises StartFailed when a far end closes."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(orders, select.POLLIN)
    if not dict(poll.poll()).get(pipe, 0) & select.POLLIN:
        raise handshake.StartFailed("3 root", 0, "the start was given up")


def _hand_over(gate: socket.socket, handed: dict[str, int]) -> None:
    handshake.send(gate, handshake.Mounts(tuple(handed)), list(handed.values()))
    for fd in handed.values():
        os.close(fd)
