"""The launcher: a fresh, single-threaded interpreter (`-I -S`) that forks monitors for the engine.

Standard library and our system calls only: what is loaded here is shared by every monitor's memory. It ends when the engine's
end of the socket closes; monitors live on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Any

from runtime.kernel import process, syscalls
from runtime.kernel.cgroups import detect
from runtime.oci import default, execution, handshake, lifecycle, limits, maker, monitor, mountplan, seccomp_profile
from runtime.oci.logfile import LogFile
from runtime.oci.session import Pipes, Session
from runtime.oci.spec import Spec
from runtime.oci.state import STARTED

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.oci.launcher import main; main(int(sys.argv[2]))"
READY = b"ready"
_BALLAST: list[bytes] = []
_BALLAST_OBJECTS = 200
_WARM_FOLDER = "/run/moorage-launcher-"  # below a folder that is root's alone
PARK_AFTER_S = 0.003  # of quiet, so that parking does not compete with the start just asked for


def main(fd: int) -> None:
    """Serve requests from the SEQPACKET socket `fd`: a JSON packet {"op": …}, beside it the control socket and a memfd
    with the request as JSON."""
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
    engine.send(READY)
    spare: socket.socket | None = None
    while True:
        if spare is None and not select.select([engine], [], [], PARK_AFTER_S)[0]:
            spare = _park(engine)
        packet, fds = handshake.receive_packet(engine)
        if not packet:
            os._exit(0)  # nothing to tidy up, and immortal objects need no farewell
        op = json.loads(packet)["op"]
        if op == "launch" and spare is not None and _hand_over(spare, fds):
            spare.close()
            spare = None
            continue
        _serve(op, fds, [engine, spare] if spare else [engine])


def _park(engine: socket.socket) -> socket.socket:
    """Fork a monitor ahead, with a maker of its own: two forks and their first page faults that no start waits for.

    It ends when the returned socket closes, with the launcher at the latest.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def child() -> None:
        _leave_launcher(engine, ours)
        parked = maker.park(_warm_up_spec)
        packet, fds = handshake.receive_packet(theirs)
        theirs.close()
        if packet:
            _work("launch", fds, parked)

    process.fork(child)
    theirs.close()
    return ours


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
    control_fd, body = fds
    request: dict[str, Any] = json.loads(os.pread(body, os.fstat(body).st_size, 0))
    os.close(body)
    with socket.socket(fileno=control_fd) as control:
        if op == "launch":
            monitor.run(request, control, parked)
        else:
            execution.run(request, control)


def _warm_up_spec() -> None:
    """Read a specification as a maker does: the types of its fields are looked up once, here."""
    options = default.Options(args=("true",), hostname="warm", cgroups_path="warm/up", id_base=default.ID_RANGE)
    text = json.dumps(default.default(options).to_json())
    for _ in range(3):
        spec = lifecycle.checked(Spec.parse(json.loads(text)))
        mountplan.operations(spec)
        limits.resources_of(spec.linux.resources)


def _warm_up() -> None:
    """Run what every monitor runs, so that its code is loaded and specialised here once, and fill half-used memory pools, so
    that what a monitor allocates lies together."""
    _warm_up_spec()
    process.ProcessRef.of(os.getpid())
    folder = f"{_WARM_FOLDER}{os.getpid()}"
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = Pipes.make(stdin=False)
    log = LogFile(f"{folder}/log", file_bytes=1 << 20, total_bytes=0)
    session = Session(control=control, pipes=pipes, attach=f"{folder}/a", log=log)
    pid = process.fork(lambda: None)
    os.write(pipes.theirs.stdout, b"warm\nup\n")
    handshake.send(other, handshake.Go())
    theirs.close()
    session.run(gate, os.pidfd_open(pid), lambda at: process.write_small(f"{folder}/{STARTED}", b"%d" % at))
    session.finish_clients()
    log.close()
    pipes.close_theirs()
    _sweep()
    _BALLAST.extend(bytes(size - 33) for size in range(48, 513, 16) for _ in range(_BALLAST_OBJECTS))


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
