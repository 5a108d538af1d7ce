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
from runtime.oci import crew, handshake, program, scheduling
from runtime.oci.session import Phase, Pipes, Session
from runtime.oci.spec import Spec, User, console_size
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
    state = State.read(bundle)
    if state is None or not state.started_ns:
        raise handshake.StartFailed("2 join", 0, "the container is not running")
    pid, gate = enter(spec, state, pipes.theirs, state.cgroup)
    pidfd = os.pidfd_open(pid)
    pipes.close_theirs()
    message, fds = handshake.receive(gate)
    terminal = fds[0] if isinstance(message, handshake.Terminal) else -1
    if terminal >= 0:
        message, _ = handshake.receive(gate)
    if not isinstance(message, handshake.Ready):
        process.wait_pidfd(pidfd)
        failed = message if isinstance(message, handshake.Failed) else handshake.Failed("4 gate", 0, "ended early")
        handshake.send(control, failed)
        return
    session = Session(control=control, pipes=pipes, attach=request["attach"], discard=request["detach"])
    session.attach.stdin_once = True
    session.bound_group = pid if request["bound"] else 0
    if terminal >= 0:
        session.take_terminal(terminal)
    own = os.pidfd_open(os.getpid())
    handshake.send(control, handshake.Ready(os.getpid(), pid), [own])
    session.take(gate, pidfd, lambda _at: None)
    code, signum = session.run()
    if session.phase is Phase.RUNNING:
        (bundle / EXEC_FOLDER).mkdir(exist_ok=True)
        record = ExitRecord(code=code, signal=signum, started_ns=session.started_ns)
        record.write(bundle / EXEC_FOLDER, f"{request['id']}.json")
    session.finish_clients()


def end(bundle: Path, identity: str) -> ExitRecord:
    """How an exec ended whose monitor has gone; code -1, unknown, when that was killed."""
    record = ExitRecord.read(bundle / EXEC_FOLDER, f"{identity}.json")
    return record or ExitRecord(code=-1, unknown=True, reason="the exec's monitor was killed")


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
        terminal=request["terminal"],
        console_size=console_size(*request["console_size"]),
    )
    return replace(spec, process=changed)


def enter(spec: Spec, state: State, streams: program.Streams, group: str) -> tuple[int, socket.socket]:
    """Fork a process into a container's group and namespaces; it is on its way to `spec`'s program, up to its gate.

    The pid is this process's child. The far end of the socket says Ready, or asks (crew.Attendant), and takes Go.
    """
    with crew.step("2 join"):
        init = state.init.open()
        if init is None:
            raise RuntimeFault("the container is not running")
        if spec.linux.namespace("pid"):
            os.setns(init, syscalls.CLONE_NEWPID)  # for the child; this process stays
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        doors = detect().doors(group) if group else []
        child = _Child(spec, init, streams, theirs, doors, _flags(spec, state.init.pid))
        pid = process.fork(child.run)
        theirs.close()
        for fd in (init, *doors):
            os.close(fd)
    with crew.step("3 limits"):
        program.limit(pid, spec.process)
        if spec.process.oom_score_adj is not None:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(spec.process.oom_score_adj))
        handshake.try_send(ours, handshake.Mapped())
    return pid, ours


class _Child:
    """The forked process that becomes the program."""

    def __init__(
        self, spec: Spec, init: int, streams: program.Streams, sock: socket.socket, doors: list[int], flags: int
    ) -> None:
        self.spec, self.init, self.streams, self.sock, self.doors = spec, init, streams, sock, doors
        self.step = "3 namespaces"
        self.flags = flags

    def run(self) -> None:
        """Ends in execve, or in a message and _exit."""
        try:
            self._become()
        except (OSError, RuntimeFault) as error:
            handshake.try_send(self.sock, handshake.Failed.of(self.step, error))
        finally:
            os._exit(127)

    def _become(self) -> None:
        spec, sock, wanted = self.spec, self.sock, self.spec.process
        os.setsid()
        if not isinstance(handshake.receive(sock)[0], handshake.Mapped):
            return
        affinity = wanted.exec_cpu_affinity
        if affinity and affinity.initial:
            os.sched_setaffinity(0, scheduling.cpus(affinity.initial))
        program.enter_groups(self.doors)
        if affinity and affinity.final:
            os.sched_setaffinity(0, scheduling.cpus(affinity.final))
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # before anybody inside can see this process
        os.setns(self.init, self.flags)
        namespaces.become_root()
        program.take_streams(self.streams, [sock.fileno()])
        if wanted.terminal:
            self.step = "4 streams"
            program.take_terminal(wanted, lambda fd: handshake.send(sock, handshake.Terminal(), [fd]))
        self.step = "4 user"
        identity = program.identify(wanted)
        program.own_streams(identity, terminal=wanted.terminal)
        program.enter_folder(wanted.cwd)
        env = program.environment(wanted, identity)
        program.default_signals()
        self.step = "4 rights"
        listener = program.confine(wanted, identity, spec.linux)
        if listener >= 0:
            handshake.send(sock, handshake.Listener(), [listener])
            os.close(listener)
        handshake.send(sock, handshake.Ready(0, 0))
        if not isinstance(handshake.receive(sock)[0], handshake.Go):
            return
        self.step = "5 exec"
        if self.streams.further:
            self.sock = socket.socket(fileno=program.settle(self.streams.further, sock.detach()))
        program.execute(wanted, env, self.step)


def _flags(spec: Spec, init: int) -> int:
    """What of the container's namespaces this process is not in. Its parent is in the pid namespace already."""
    kinds = {n.type for n in spec.linux.namespaces} - {"pid"}
    if "user" in kinds and namespaces.same_user(init):
        kinds.remove("user")
    return namespaces.flags(kinds)
