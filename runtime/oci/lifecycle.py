"""Making one container up to its start gate: the steps 2 and 3, in a short-lived maker (maker.py). Numbers as in init.py.

Whatever was acquired is undone in reverse when a step fails or the far end gives up.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.kernel import namespaces, process, syscalls
from runtime.kernel.cgroups import Cgroups, Resources, detect
from runtime.kernel.cgroups.v2 import V2
from runtime.oci import handshake, init, limits, program, rootfs
from runtime.oci.fields import SpecFault
from runtime.oci.program import Streams
from runtime.oci.spec import Spec
from runtime.oci.state import ROOT
from runtime.storage.driver import RootPlan

_CLONED = ("user", "pid", "mount", "uts", "ipc")


@dataclass(frozen=True, slots=True)
class Created:
    """An init that waits at its gate. `gate` is the socket to it; its closing without a message means that execve succeeded."""

    pid: int
    pidfd: int
    gate: socket.socket
    cgroup: str
    loop: str
    notes: list[str]


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step that an error belongs to."""
    try:
        yield
    except (OSError, RuntimeFault) as error:
        raise handshake.Failed.of(name, error).error() from error


def checked(spec: Spec) -> Spec:
    """The spec if this runtime can keep its promises with it; raises SpecFault with what is missing or dangerous."""
    path, linux = spec.linux.cgroups_path, spec.linux
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise SpecFault(
            f"linux.cgroupsPath is {path!r}.", "Give a relative path without dots, like top/team/app/instance."
        )
    missing = [kind for kind in _CLONED if linux.namespace(kind) is None]
    if missing or not linux.uid_mappings or not linux.gid_mappings:
        raise SpecFault(
            f"The namespaces {', '.join(missing) or 'user'} or their id maps are missing.", "Containers have all."
        )
    for name in linux.sysctl:
        if "/" in name or (name.startswith("net.") and linux.namespace("network") is None):
            raise SpecFault(f"The sysctl {name} would reach the host.", "Leave it out.")
    return spec


def create(spec: Spec, bundle: Path, streams: Streams, control: socket.socket | None) -> Created:
    """Make the container up to its gate; raises StartFailed with everything undone.

    Joins the sandbox's network namespace for good; the init becomes a child of this process's parent. `control` closing
    gives up. Only for a process with one thread.
    """
    with ExitStack() as acquired:
        with step("2 cgroup"):
            cgroups = detect()
            resources = limits.resources_of(spec.linux.resources)
            acquired.callback(remove_group, cgroups, spec.linux.cgroups_path)
            cgroups.create(spec.linux.cgroups_path, resources)
        with step("2 network"):
            _enter_network(spec)
        with step("2 clone"):
            own(streams, spec.linux.uid_mappings[0].host_id)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            acquired.callback(ours.close)
            pid, pidfd = _clone(spec, streams, theirs, ours)
            acquired.callback(_end, pidfd)
            theirs.close()
            notes = program.limit(pid, spec.process)
        with step("3 ids"):
            _map_ids(pid, spec)
            handshake.send(ours, handshake.Mapped())
        loop = _hand_over(spec, bundle, pid, ours)
        with step("3 limits"):
            rates = limits.with_loop(resources.io, loop)
            cgroups.set_limits(spec.linux.cgroups_path, Resources(io=rates))
        _await_ready(ours, control)
        acquired.pop_all()
        return Created(pid, pidfd, ours, spec.linux.cgroups_path, loop, notes)


def undo(created: Created) -> None:
    """Take a container away that was made and never started."""
    created.gate.close()
    _end(created.pidfd)
    remove_group(detect(), created.cgroup)


def remove_group(cgroups: Cgroups, path: str) -> None:
    cgroups.kill(path)
    cgroups.remove(path)


def _end(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll()
    with contextlib.suppress(ChildProcessError):  # in the maker it is the monitor's child
        process.wait_pidfd(pidfd)
    os.close(pidfd)


def _enter_network(spec: Spec) -> None:
    """Join the sandbox before the init is cloned, so that the namespace belongs to the host's user namespace."""
    network = spec.linux.namespace("network")
    if network is None:
        return
    if network.path:
        namespaces.join(Path(network.path), "network")
    else:
        os.unshare(syscalls.CLONE_NEWNET)
        namespaces.bring_loopback_up()
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    for name, value in spec.linux.sysctl.items():
        if name.startswith("net."):
            Path("/proc/sys", name.replace(".", "/")).write_text(value)


def own(streams: Streams, owner: int) -> None:
    """Give the program's pipe ends to the container's root; the init hands them on to its user."""
    for fd in (streams.stdin, streams.stdout, streams.stderr):
        if fd >= 0:
            os.fchown(fd, owner, owner)


def _clone(spec: Spec, streams: Streams, theirs: socket.socket, ours: socket.socket) -> tuple[int, int]:
    """Clone the init: on v2 into its group, on v1 with doors into its groups, through which it goes itself."""
    cgroups, path = detect(), spec.linux.cgroups_path
    kinds = [kind for kind in _CLONED if spec.linux.namespace(kind)]
    group = cgroups.open(path) if isinstance(cgroups, V2) else None
    doors = () if group is not None else tuple(cgroups.doors(path))
    try:
        pid, pidfd = syscalls.clone3(namespaces.flags(kinds) | syscalls.CLONE_PARENT, cgroup=group)
        if not pid:
            ours.close()
            init.run(init.Job(spec, streams, theirs, cgroups, doors))
    finally:
        for fd in doors if group is None else (group,):
            os.close(fd)
    return pid, pidfd


def _map_ids(pid: int, spec: Spec) -> None:
    for kind, mappings in (("uid", spec.linux.uid_mappings), ("gid", spec.linux.gid_mappings)):
        namespaces.map_ids(pid, kind, [(m.container_id, m.host_id, m.size) for m in mappings])
    if spec.process.oom_score_adj is not None:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(spec.process.oom_score_adj))


def _hand_over(spec: Spec, bundle: Path, pid: int, gate: socket.socket) -> str:
    """Step "3 root": a helper makes the mounts and sends them to the init; returns the loop device's name or ""."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def helper() -> None:
        try:
            userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            plan = RootPlan.read(bundle / ROOT) if (bundle / ROOT).exists() else None
            handover = rootfs.build(spec, bundle, plan, userns)
            handshake.send(gate, handshake.Mounts(tuple(handover.mounts)), list(handover.mounts.values()))
            handshake.send(theirs, handshake.Ready(0, 0, handover.loop))
        except (OSError, RuntimeFault) as error:
            handshake.send(theirs, handshake.Failed.of("3 root", error))

    with ours:
        child = process.fork(helper)
        theirs.close()
        message, _ = handshake.receive(ours)
        os.waitpid(child, 0)
    if isinstance(message, handshake.Ready):
        return message.loop
    if isinstance(message, handshake.Failed):
        raise message.error()
    raise handshake.StartFailed("3 root", 0, "the helper that mounts the root file system ended early")


def _await_ready(gate: socket.socket, control: socket.socket | None) -> None:
    """Step 4 happens in the init."""
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    if control is not None:
        poll.register(control, select.POLLIN)
    if gate.fileno() not in dict(poll.poll()):
        raise handshake.StartFailed("4 gate", 0, "the start was given up")
    message, _ = handshake.receive(gate)
    if isinstance(message, handshake.Failed):
        raise message.error()
    if not isinstance(message, handshake.Ready):
        raise handshake.StartFailed("4 gate", 0, "the init ended early: was it killed for want of memory?")
