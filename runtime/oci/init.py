"""The container's first process, from clone3 to execve: the only one that touches paths inside the image.

Steps carry the numbers of docs/architecture and of lifecycle.py; a failure travels up as `Failed(step, errno, text)`.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime.errors import RuntimeFault
from runtime.kernel import mounts, namespaces, syscalls
from runtime.kernel.cgroups import Cgroups
from runtime.oci import handshake, mountplan, program
from runtime.oci.spec import Spec


@dataclass(frozen=True, slots=True)
class Job:
    """What the init inherits from the monitor that cloned it."""

    spec: Spec
    streams: program.Streams
    sock: socket.socket
    cgroups: Cgroups
    doors: tuple[int, ...]  # into its groups (Cgroups.doors); empty when it was cloned into them


class _Gone(Exception):
    """The monitor ended before the gate opened."""


def run(job: Job) -> NoReturn:
    """Everything the init does. Never returns to its caller: execve or _exit."""
    step = ["3 namespaces"]
    try:
        _prepare(job, step)
    except _Gone:
        pass
    except (OSError, RuntimeFault) as error:
        handshake.try_send(job.sock, handshake.Failed.of(step[0], error))
    except BaseException as error:  # noqa: BLE001  the last frame of a forked process
        handshake.try_send(job.sock, handshake.Failed(step[0], 0, repr(error)))
    finally:
        os._exit(127)


def _prepare(job: Job, step: list[str]) -> None:
    spec = job.spec
    os.setsid()
    _wait_mapped(job)
    step[0] = "3 root"
    handed = _receive_mounts(job.sock)
    step[0] = "4 mounts"
    _mount(job, handed)
    step[0] = "4 streams"
    program.take_streams(job.streams, job.sock)
    step[0] = "4 user"
    identity = program.identify(spec.process)
    program.own_streams(identity)
    program.enter_folder(spec.process.cwd)
    env = program.environment(spec.process, identity)
    program.default_signals()
    step[0] = "4 rights"
    program.confine(spec.process, identity, spec.linux.seccomp)
    handshake.send(job.sock, handshake.Ready(0, 0))
    if not isinstance(handshake.receive(job.sock)[0], handshake.Go):
        raise _Gone
    step[0] = "5 exec"
    program.execute(spec.process, env, step[0])


def _wait_mapped(job: Job) -> None:
    """Join the groups, once ids are mapped, and only then unshare: a cgroup namespace made earlier would show the host's paths."""
    if not isinstance(handshake.receive(job.sock)[0], handshake.Mapped):
        raise _Gone
    program.enter_groups(job.doors)
    if job.spec.linux.namespace("cgroup"):
        os.unshare(syscalls.CLONE_NEWCGROUP)
    namespaces.become_root()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if job.spec.hostname:
        socket.sethostname(job.spec.hostname)
    for name, value in job.spec.linux.sysctl.items():
        if not name.startswith("net."):
            Path("/proc/sys", name.replace(".", "/")).write_text(value)


def _receive_mounts(sock: socket.socket) -> dict[str, int]:
    message, fds = handshake.receive(sock)
    if not isinstance(message, handshake.Mounts):
        raise _Gone
    return dict(zip(message.names, fds, strict=True))


def _mount(job: Job, handed: dict[str, int]) -> None:
    root = handed.pop("root")
    mounts.attach_root(root)
    mountplan.carry_out(mountplan.operations(job.spec), mountplan.Place(root, handed, job.cgroups))
    if job.spec.root.readonly:
        mounts.add_attributes(root, syscalls.MOUNT_ATTR_RDONLY)
    mounts.enter_root(root)
