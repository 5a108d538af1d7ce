"""The launcher: a fresh, single-threaded interpreter (`-I -S`) that forks monitors for the engine.

Standard library and our system calls only: what is loaded here is shared by every monitor's memory. It ends when the engine's
end of the socket closes; monitors live on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from runtime.dataclass import dataclass
from runtime.kernel import process, syscalls
from runtime.kernel.cgroups import detect
from runtime.oci import crew, default, execution, handshake, lifecycle, limits, maker, monitor, seccomp_profile, stage
from runtime.oci.logfile import LogFile
from runtime.oci.session import Pipes, Session
from runtime.oci.spec import Spec
from runtime.oci.state import STARTED

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.oci.launcher import main; main(int(sys.argv[2]))"
READY = b"ready"
_BALLAST: list[object] = []
_POOL_BYTES, _POOL_HEADER_BYTES = 16 << 10, 48  # of the interpreter's allocator (Include/internal/pycore_obmalloc.h)
_SMALL_BYTES = 512  # what is larger comes from the C library
_WARM_RUNS = 8
_WARM_FOLDER = "/run/moorage-launcher-"  # below a folder that is root's alone


@dataclass(frozen=True, slots=True)
class _Parked:
    """A monitor that was forked ahead, with its maker and crew; it ends when the socket to it closes."""

    name: str
    sock: socket.socket


def main(fd: int) -> None:
    """Serve requests from the SEQPACKET socket `fd`: a JSON packet {"op": …}, and descriptors beside it.

    "launch" and "exec" bring the control socket and a memfd with the request as JSON; "launch" may bring the pipe that tells
    when its bundle is complete, and name in "crew" the parked one to take. "park" brings a network namespace, names the crew
    and its ids, and replaces the one before.
    """
    engine = socket.socket(fileno=fd)
    engine.set_inheritable(False)
    process.set_name("moorage-launch")
    detect()
    seccomp_profile.program(seccomp_profile.default())
    _warm_up()
    signal.signal(signal.SIGCHLD, _reap)
    gc.collect()
    syscalls.immortalize()
    gc.freeze()
    _fill_holes()
    engine.send(READY)
    parked: _Parked | None = None
    while True:
        packet, fds = handshake.receive_packet(engine)
        if not packet:
            os._exit(0)  # nothing to tidy up, and immortal objects need no farewell
        order = json.loads(packet)
        op = order["op"]
        if op == "park":
            if parked:
                parked.sock.close()
            parked = _park(order, fds, engine)
        elif op == "launch" and parked and order["crew"] == parked.name and _hand_over(parked.sock, fds):
            parked.sock.close()
            parked = None
        else:
            _serve(op, fds, [engine, parked.sock] if parked else [engine])


def _park(order: dict[str, Any], fds: list[int], engine: socket.socket) -> _Parked:
    """Fork a monitor ahead, with a maker and a crew: forks, namespaces and mounts that no start waits for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (netns,) = fds

    def child() -> None:
        _leave_launcher(engine, ours)
        maker_ = maker.park(lambda: _gather(order["id_base"], netns, theirs))
        os.close(netns)
        packet, given = handshake.receive_packet(theirs)
        theirs.close()
        if packet:
            _work("launch", given, maker_)
        else:
            maker_.dismiss()

    process.fork(child)
    theirs.close()
    os.close(netns)
    return _Parked(order["crew"], ours)


def _gather(id_base: int, netns: int, monitors: socket.socket) -> crew.Crew | None:
    """In a parked maker: a crew for any container with these ids, in that network; None, and said, when there can be none.

    `monitors` is for its parent alone, whose end the launcher sees by it.
    """
    monitors.close()
    _warm_up_spec()
    options = default.Options(
        args=("true",), hostname="", cgroups_path="parked", id_base=id_base, netns=Path(f"/proc/self/fd/{netns}")
    )
    spec = default.default(options)
    try:
        return crew.gather(spec, stage.ahead(spec, detect()))
    except handshake.StartFailed as error:
        os.write(2, f"no container could be prepared ahead: {error}\n".encode())
        return None
    finally:
        os.close(netns)


def _hand_over(spare: socket.socket, fds: list[int]) -> bool:
    """Give a launch to the parked monitor; False when it is gone."""
    try:
        handshake.send_packet(spare, b"launch", fds)
    except OSError:
        return False
    for fd in fds:
        os.close(fd)
    return True


def _leave_launcher(*its: socket.socket) -> None:
    """In a forked child: a session of its own, without the launcher's sockets, whose closing others wait for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for sock in its:
        sock.close()


def _work(op: str, fds: list[int], parked: maker.Maker | None = None) -> None:
    control_fd, body, *rest = fds
    request: dict[str, Any] = json.loads(os.pread(body, os.fstat(body).st_size, 0))
    os.close(body)
    with socket.socket(fileno=control_fd) as control:
        if op == "launch":
            monitor.run(request, control, rest[0] if rest else -1, parked)
        else:
            execution.run(request, control)


def _warm_up_spec() -> None:
    """Read a specification as a maker does: the types of its fields are looked up once, here."""
    options = default.Options(args=("true",), hostname="warm", cgroups_path="warm/up", id_base=default.ID_RANGE)
    text = json.dumps(default.default(options).to_json())
    for _ in range(3):
        spec = lifecycle.isolated(Spec.parse(json.loads(text)))
        stage.late(spec, stage.ahead(spec, detect()))
        limits.resources_of(spec.linux.resources)


def _warm_up() -> None:
    """Run what every monitor runs, so that its code is loaded and specialised here once: what specialises writes into itself."""
    _warm_up_spec()
    folder = f"{_WARM_FOLDER}{os.getpid()}"
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    for _ in range(_WARM_RUNS):
        _warm_up_session(folder)
    _sweep()


def _warm_up_session(folder: str) -> None:
    process.ProcessRef.of(os.getpid())
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = Pipes.make(stdin=False)
    log = LogFile(f"{folder}/log", file_bytes=1 << 20, total_bytes=0)
    session = Session(control=control, pipes=pipes, attach=f"{folder}/a", log=log)
    pid = process.fork(lambda: None)
    os.write(pipes.theirs.stdout, b"warm\nup\n")
    handshake.send(other, handshake.Go())
    theirs.close()
    session.take(gate, os.pidfd_open(pid), lambda at: process.write_small(f"{folder}/{STARTED}", b"%d" % at))
    child = process.fork(lambda: None)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    process.children()
    session.reap(child)
    session.run()
    session.finish_clients()
    log.close()
    pipes.close_theirs()
    for end in (control, other, gate):
        end.close()


def _fill_holes() -> None:
    """Fill memory pools that are half used, so that what a monitor allocates lies together, on few pages of its own.

    The first object of a pool tells that no other pool of its size had room. Sizes below are without the collector's header.
    """
    empty = sys.getsizeof(b"")
    for size in range(16, _SMALL_BYTES + 1, 16):
        for _ in range(_POOL_BYTES):
            item = object() if size == 16 else complex(0, 1) if size == 32 else bytes(size - empty)
            _BALLAST.append(item)
            if id(item) % _POOL_BYTES == _POOL_HEADER_BYTES:
                break


def _sweep() -> None:
    """Remove the folder of this warm-up, and of launchers that were killed during theirs."""
    for folder in Path(_WARM_FOLDER).parent.glob(f"{Path(_WARM_FOLDER).name}*"):
        pid = int(folder.name.removeprefix(Path(_WARM_FOLDER).name))
        if pid != os.getpid() and process.start_ticks(pid) is not None:
            continue
        for part in ("log/current", "log", STARTED, "a", ""):
            path = folder / part
            with contextlib.suppress(FileNotFoundError):
                path.rmdir() if path.is_dir() else path.unlink()


def _reap(_signum: int, _frame: FrameType | None) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _serve(op: str, fds: list[int], its: list[socket.socket]) -> None:
    def child() -> None:
        _leave_launcher(*its)
        _work(op, fds)

    process.fork(child)
    for fd in fds:
        os.close(fd)
