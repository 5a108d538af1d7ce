"""A further program in a running container: a short-lived monitor that survives the engine. setns(2) by the init's pidfd.

Steps: 2 join, 3 groups, 4 rights (in the child), 5 exec, as for a container.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.kernel import namespaces, process, syscalls
from runtime.kernel.cgroups import detect
from runtime.oci import crew, handshake, program
from runtime.oci.session import Phase, Pipes, Session
from runtime.oci.spec import Spec, User
from runtime.oci.state import CONFIG, ExitRecord, State

EXEC_FOLDER = "exec"


def run(request: dict[str, Any], control: socket.socket) -> None:
    """Everything an exec's monitor does. `request` is an ExecRequest as JSON."""
    process.set_name("moorage-exec")
    try:
        _live(request, control)
    except (OSError, ValueError, RuntimeFault) as error:
        fault = error if isinstance(error, OSError | RuntimeFault) else RuntimeFault(str(error))
        handshake.try_send(control, handshake.Failed.of("2 monitor", fault))


def _live(request: dict[str, Any], control: socket.socket) -> None:
    bundle = Path(request["bundle"])
    spec = _adapted(Spec.read(bundle / CONFIG), request)
    pipes = Pipes.make(stdin=request["stdin"])
    crew.own(pipes.theirs, spec.linux.uid_mappings[0].host_id)
    pid, gate = _start(spec, bundle, pipes)
    pidfd = os.pidfd_open(pid)
    pipes.close_theirs()
    message, _ = handshake.receive(gate)
    if not isinstance(message, handshake.Ready):
        process.wait_pidfd(pidfd)
        failed = message if isinstance(message, handshake.Failed) else handshake.Failed("4 gate", 0, "ended early")
        handshake.send(control, failed)
        return
    session = Session(control=control, pipes=pipes, attach=request["attach"], discard=request["detach"])
    session.attach.stdin_once = True
    own = os.pidfd_open(os.getpid())
    handshake.send(control, handshake.Ready(os.getpid(), pid), [own])
    session.take(gate, pidfd, lambda _at: None)
    code, signum = session.run()
    if session.phase is Phase.RUNNING:
        (bundle / EXEC_FOLDER).mkdir(exist_ok=True)
        record = ExitRecord(code=code, signal=signum, started_ns=session.started_ns)
        record.write(bundle / EXEC_FOLDER, f"{request['id']}.json")
    session.finish_clients()


def _adapted(spec: Spec, request: dict[str, Any]) -> Spec:
    own = spec.process
    nnp = request["no_new_privileges"]
    changed = replace(
        own,
        args=tuple(request["args"]),
        env=tuple(request["env"]),
        cwd=request["cwd"] or own.cwd,
        user=User(username=request["user"]) if request["user"] else own.user,
        no_new_privileges=own.no_new_privileges if nnp is None else nnp,
    )
    return replace(spec, process=changed)


def _start(spec: Spec, bundle: Path, pipes: Pipes) -> tuple[int, socket.socket]:
    with crew.step("2 join"):
        state = State.read(bundle)
        init = state.init.open() if state and state.started_ns else None
        if state is None or init is None:
            raise RuntimeFault("the container is not running")
        os.setns(init, syscalls.CLONE_NEWPID)  # for the child; this process stays
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        doors = detect().doors(state.cgroup)
        child = _Child(spec, init, pipes, theirs, doors)
        pid = process.fork(child.run)
        theirs.close()
        for fd in (init, *doors):
            os.close(fd)
    with crew.step("3 limits"):
        program.limit(pid, spec.process)
        handshake.try_send(ours, handshake.Mapped())
    return pid, ours


class _Child:
    """The forked process that becomes the program."""

    def __init__(self, spec: Spec, init: int, pipes: Pipes, sock: socket.socket, doors: list[int]) -> None:
        self.spec, self.init, self.pipes, self.sock, self.doors = spec, init, pipes, sock, doors
        self.step = "3 namespaces"

    def run(self) -> None:
        """Ends in execve, or in a message and _exit."""
        try:
            self._become()
        except (OSError, RuntimeFault) as error:
            handshake.try_send(self.sock, handshake.Failed.of(self.step, error))
        finally:
            os._exit(127)

    def _become(self) -> None:
        spec, sock = self.spec, self.sock
        os.setsid()
        if not isinstance(handshake.receive(sock)[0], handshake.Mapped):
            return
        program.enter_groups(self.doors)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # before anybody inside can see this process
        os.setns(self.init, namespaces.ALL & ~(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWTIME))
        namespaces.become_root()
        program.take_streams(self.pipes.theirs, [sock.fileno()])
        self.step = "4 user"
        identity = program.identify(spec.process)
        program.own_streams(identity)
        program.enter_folder(spec.process.cwd)
        env = program.environment(spec.process, identity)
        program.default_signals()
        self.step = "4 rights"
        program.confine(spec.process, identity, spec.linux)
        handshake.send(sock, handshake.Ready(0, 0))
        if not isinstance(handshake.receive(sock)[0], handshake.Go):
            return
        self.step = "5 exec"
        program.execute(spec.process, env, self.step)
