"""The container's first process, from clone3 to execve: the only one that touches paths inside the image.

It is cloned by a crew (crew.py), maybe long before its order comes; what a stage has by then is mounted already. Steps carry the
numbers of docs/architecture and of lifecycle.py; a failure travels up as `Failed(step, errno, text)`.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from runtime.errors import RuntimeFault
from runtime.kernel import mounts, namespaces, process, syscalls
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v2 import V2
from runtime.oci import handshake, mountplan, program, stage
from runtime.oci.spec import Spec


class _Gone(Exception):
    """The far end closed before the gate opened."""


@dataclass(slots=True)
class _Work:
    """What the init has been given so far."""

    sock: socket.socket
    cgroups: Cgroups
    step: str = "3 namespaces"
    handed: dict[str, int] = field(default_factory=dict)
    groups: list[int] | None = None


def run(sock: socket.socket, ahead: stage.Plan, cgroups: Cgroups, like: Spec) -> NoReturn:
    """Everything the init does. Never returns to its caller: execve or _exit. `like` resembles what the order will bring."""
    work = _Work(sock, cgroups)
    try:
        _prepare(work, ahead, like)
    except _Gone:
        pass
    except (OSError, RuntimeFault) as error:
        handshake.try_send(sock, handshake.Failed.of(work.step, error))
    except BaseException as error:  # noqa: BLE001  the last frame of a forked process
        handshake.try_send(sock, handshake.Failed(work.step, 0, repr(error)))
    finally:
        os._exit(127)


def _prepare(work: _Work, ahead: stage.Plan, like: Spec) -> None:
    os.setsid()
    program.close_all_but(work.sock)
    _expect(work, handshake.Mapped)
    if not isinstance(work.cgroups, V2):
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
    work.step = "4 streams"
    program.take_streams(streams, work.sock)
    work.step = "4 user"
    identity = program.identify(spec.process)
    program.own_streams(identity)
    program.enter_folder(spec.process.cwd)
    env = program.environment(spec.process, identity)
    program.default_signals()
    work.step = "4 rights"
    program.confine(spec.process, identity, spec.linux.seccomp)
    handshake.send(work.sock, handshake.Ready(0, 0))
    _expect(work, handshake.Go)
    work.step = "5 exec"
    program.execute(spec.process, env, work.step)


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
    if isinstance(work.cgroups, V2):
        child = process.fork(lambda: _stage_as_root(work, ahead))
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
    config, stdout, stderr, *rest = _expect(work, handshake.Order)
    with os.fdopen(config, "rb") as file:
        spec = Spec.parse(json.loads(file.read()))
    return spec, program.Streams(rest[0] if rest else -1, stdout, stderr)


def _stage_as_root(work: _Work, ahead: stage.Plan) -> None:
    _become_root()
    stage.build(ahead, work.handed, work.cgroups)


def _enter_groups(work: _Work, groups: list[int], spec: Spec) -> None:
    """Get into the groups and only then unshare: a cgroup namespace made earlier would show the host's paths."""
    if isinstance(work.cgroups, V2):
        _clone_into(work, groups[0])
        _become_root()
    else:
        program.enter_groups(groups)
    if spec.linux.namespace("cgroup"):
        os.unshare(syscalls.CLONE_NEWCGROUP)
    if spec.hostname:
        socket.sethostname(spec.hostname)
    for name, value in spec.linux.sysctl.items():
        if not name.startswith("net."):
            Path("/proc/sys", name.replace(".", "/")).write_text(value)


def _clone_into(work: _Work, group: int) -> None:
    """Go on as a child in the group, with a process id namespace of its own; the far end is told before it does anything."""
    told, telling = os.pipe()
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID | syscalls.CLONE_PARENT, cgroup=group)
    if pid:
        handshake.send(work.sock, handshake.Cloned(pid), [pidfd])
        os._exit(0)
    os.close(telling)
    os.read(told, 1)
    os.close(told)
    os.close(group)


def _mount(work: _Work, spec: Spec, staged: stage.Stage | None, ahead: stage.Plan) -> None:
    root = work.handed.pop("root")
    mounts.attach_root(root)
    if staged:
        staged.move_below(root)
    mountplan.carry_out(stage.late(spec, ahead), mountplan.Place(root, work.handed, work.cgroups))
    if spec.root.readonly:
        mounts.add_attributes(root, syscalls.MOUNT_ATTR_RDONLY)
    mounts.enter_root(root, layers=staged.layers if staged else 1)
