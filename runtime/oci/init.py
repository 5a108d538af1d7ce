"""The container's first process, from clone3 to execve: the only one that touches paths inside the image.

It is cloned by a crew (crew.py), maybe long before its order comes; what a stage has by then is mounted already. Steps carry the
numbers of docs/architecture and of lifecycle.py; a failure travels up as `Failed(step, errno, text)`.
"""

from __future__ import annotations

import os
import socket
from dataclasses import field
from pathlib import Path
from typing import NoReturn

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault
from runtime.kernel import mounts, namespaces, syscalls
from runtime.kernel import process as processes
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v2 import V2
from runtime.oci import handshake, hooks, mountplan, program, stage, sysctl
from runtime.oci.nsplan import NamespacePlan
from runtime.oci.spec import Hooks, Spec


class _Gone(Exception):
    """The far end closed before the gate opened."""


@dataclass(slots=True)
class _Work:
    """What the init has been given so far. `hooked` is what its own hooks are told."""

    sock: socket.socket
    cgroups: Cgroups
    plan: NamespacePlan
    step: str = "3 namespaces"
    handed: dict[str, int] = field(default_factory=dict)
    groups: list[int] | None = None
    gate: socket.socket | None = None
    order: handshake.Order = field(default_factory=handshake.Order)
    hooked: str = ""


def run(sock: socket.socket, ahead: stage.Plan, cgroups: Cgroups, like: Spec) -> NoReturn:
    """Everything the init does. Never returns to its caller: execve or _exit. `like` resembles what the order will bring."""
    work = _Work(sock, cgroups, NamespacePlan.of(like, cgroups))
    try:
        _prepare(work, ahead, like)
    except _Gone:
        pass
    except (OSError, RuntimeFault) as error:
        handshake.try_send(work.sock, handshake.Failed.of(work.step, error))
    except BaseException as error:  # noqa: BLE001  the last frame of a forked process
        handshake.try_send(work.sock, handshake.Failed(work.step, 0, repr(error)))
    finally:
        os._exit(127)


def _prepare(work: _Work, ahead: stage.Plan, like: Spec) -> None:
    os.setsid()
    program.close_all_but(work.sock.fileno())
    if work.plan.by_itself:
        work.plan.enter()
        handshake.send(work.sock, handshake.Ready(0, 0))
    _expect(work, handshake.Mapped)
    if not work.plan.two_steps:
        _become_root()
    staged = _mount_ahead(work, ahead) if ahead else None
    if staged:
        stage.rehearse(like, ahead)
    spec, streams = _take_order(work)
    while work.groups is None:
        _next(work)
    _enter_groups(work, work.groups, spec)
    work.step = "3 root"
    while "root" not in work.handed:
        _next(work)
    work.step = "4 mounts"
    _mount(work, spec, staged, ahead)
    _become_program(work, spec, streams)


def _become_program(work: _Work, spec: Spec, streams: program.Streams) -> None:
    """In the container's root: streams, user, rights; then wait at the gate."""
    process, keep = spec.process, [work.sock.fileno()]
    if work.gate:
        keep.append(work.gate.fileno())
    work.step = "4 streams"
    program.take_streams(streams, keep)
    if process.terminal:
        program.take_terminal(process, lambda fd: handshake.send(work.sock, handshake.Terminal(), [fd]))
        program.bind_console()
    work.step = "4 user"
    identity = program.identify(process)
    program.own_streams(identity, terminal=process.terminal)
    program.enter_folder(process.cwd)
    env = program.environment(process, identity)
    program.default_signals()
    work.step = "4 rights"
    listener = program.confine(process, identity, spec.linux)
    if listener >= 0:
        handshake.send(work.sock, handshake.Listener(), [listener])
        os.close(listener)
    if work.gate:  # whose caller hears of a missing program at once
        program.look_for(process, env, work.step)
    handshake.send(work.sock, handshake.Ready(0, 0))
    if work.gate:
        _await_start(work, work.gate)
    _expect(work, handshake.Go)
    if spec.hooks.start_container:
        work.step = "5 hooks"
        hooks.run_all(spec.hooks.start_container, work.hooked)
    work.step = "5 exec"
    if streams.further:
        work.sock = socket.socket(fileno=program.settle(streams.further, work.sock.detach()))
    program.execute(process, env, work.step)


def _await_start(work: _Work, gate: socket.socket) -> None:
    """Who connects opens the gate, and hears whether the program runs; who made the container has gone meanwhile."""
    work.sock.close()
    work.sock, _ = gate.accept()
    gate.close()


def _expect(work: _Work, kind: type[handshake.Message]) -> list[int]:
    """The next message, which can only be that one; its descriptors."""
    message, fds = handshake.receive(work.sock)
    if not isinstance(message, kind):
        raise _Gone
    return fds


def _next(work: _Work) -> None:
    """Take what comes after the order: mounts from the helper and groups from the maker, in any order."""
    message, fds = handshake.receive(work.sock)
    if isinstance(message, handshake.Mounts):
        work.handed |= dict(zip(message.names, fds, strict=True))
    elif isinstance(message, handshake.Groups):
        work.groups = fds
    else:
        raise _Gone


def _become_root() -> None:
    """Of the namespace; on v2 only once the clone is in its group, which is the host's root's to decide."""
    namespaces.become_root()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _mount_ahead(work: _Work, ahead: stage.Plan) -> stage.Stage:
    """What is mounted belongs to the namespace's root: on v2 a child is that for as long as it takes."""
    _next(work)
    work.step = "4 stage"
    if work.plan.two_steps:
        child = processes.fork(lambda: _stage_as_root(work, ahead))
        if os.waitpid(child, 0)[1]:
            raise handshake.StartFailed(work.step, 0, "what containers have in common could not be mounted")
        for fd in work.handed.values():
            os.close(fd)
        work.handed.clear()
    else:
        stage.build(ahead, work.handed, work.cgroups)
    staged = stage.find(work.cgroups)
    handshake.send(work.sock, handshake.Ready(0, 0))
    work.step = "3 namespaces"
    return staged


def _take_order(work: _Work) -> tuple[Spec, program.Streams]:
    order, fds = handshake.receive(work.sock)
    if not isinstance(order, handshake.Order):
        raise _Gone
    config, stdout, stderr, *rest = fds
    with os.fdopen(config, "rb") as file:
        spec = Spec.decode(file.read())
    stdin = rest.pop(0) if order.stdin else -1
    work.order = order
    if order.gate:
        work.gate = socket.socket(fileno=rest.pop(0))
    return spec, program.Streams(stdin, stdout, stderr, dict(zip(order.further, rest, strict=True)))


def _stage_as_root(work: _Work, ahead: stage.Plan) -> None:
    _become_root()
    stage.build(ahead, work.handed, work.cgroups)


def _enter_groups(work: _Work, groups: list[int], spec: Spec) -> None:
    """Get into the groups and only then unshare: a cgroup namespace made earlier would show the host's paths."""
    into = groups[0] if groups and isinstance(work.cgroups, V2) else None
    if into is None:
        program.enter_groups(groups)
    if work.plan.two_steps:
        _clone_into(work, into)
        os.setsid()
        _become_root()
    if work.order.keyring:
        syscalls.join_session_keyring()
    if "cgroup" in work.plan.made:
        os.unshare(syscalls.CLONE_NEWCGROUP)
    elif path := work.plan.joined_path("cgroup"):
        namespaces.join(Path(path), "cgroup")
    _settle_in(work, spec)


def _settle_in(work: _Work, spec: Spec) -> None:
    """Names, and parameters of the namespaces that are its own."""
    if spec.hostname:
        socket.sethostname(spec.hostname)
    if spec.domainname:
        syscalls.setdomainname(spec.domainname)
    own_network = "network" in work.plan.made
    if own_network:
        namespaces.bring_loopback_up()
    for name, value in spec.linux.sysctl.items():
        if own_network or not sysctl.of_network(name):
            sysctl.write(name, value)


def _clone_into(work: _Work, group: int | None) -> None:
    """Go on as a child in the group, with a process id namespace of its own; the far end is told before it does anything."""
    told, telling = os.pipe()
    pid, pidfd = syscalls.clone3(work.plan.second_flags() | syscalls.CLONE_PARENT, cgroup=group)
    if pid:
        handshake.send(work.sock, handshake.Cloned(pid), [pidfd])
        os._exit(0)
    os.close(telling)
    os.read(told, 1)
    os.close(told)
    if group is not None:
        os.close(group)


def _mount(work: _Work, spec: Spec, staged: stage.Stage | None, ahead: stage.Plan) -> None:
    root = work.handed.pop("root")
    if not spec.linux.namespace("user"):  # for another user namespace the kernel has done so
        mounts.receive_only()
    mounts.attach_root(root)
    if staged:
        staged.move_below(root)
    mountplan.carry_out(stage.late(spec, ahead), mountplan.Place(root, work.handed, work.cgroups))
    if spec.hooks != Hooks():
        _run_hooks(work, spec)
    if spec.root.readonly:
        mounts.add_attributes(root, syscalls.MOUNT_ATTR_RDONLY)
    if work.order.pivot:
        mounts.enter_root(root, layers=staged.layers if staged else 1)
    else:
        mounts.change_root(root)


def _run_hooks(work: _Work, spec: Spec) -> None:
    """Those of the host first, by the maker; then the container's, whose programs are still the host's."""
    work.step = "4 hooks"
    handshake.send(work.sock, handshake.AtHooks())
    message, _ = handshake.receive(work.sock)
    if not isinstance(message, handshake.Hooked):
        raise _Gone
    work.hooked = message.created
    hooks.run_all(spec.hooks.create_container, message.creating)
    work.step = "4 mounts"
