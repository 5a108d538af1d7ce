"""The launcher: a fresh, single-threaded interpreter (`-I -S`) that forks monitors for the engine.

Standard library and our system calls only: what is loaded here is shared by every monitor's memory. It ends when the engine's
end of the socket closes; monitors live on.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from types import FrameType
from typing import Any

from runtime.kernel import process
from runtime.kernel.cgroups import detect
from runtime.oci import execution, handshake, monitor, seccomp_profile

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.oci.launcher import main; main(int(sys.argv[2]))"
READY = b"ready"
_JOBS = {"launch": monitor.run, "exec": execution.run}


def main(fd: int) -> None:
    """Serve requests from the SEQPACKET socket `fd`: a JSON packet {"op": …}, beside it the control socket and a memfd
    with the request as JSON."""
    engine = socket.socket(fileno=fd)
    engine.set_inheritable(False)
    process.set_name("moorage-launch")
    detect()
    seccomp_profile.program(seccomp_profile.default())
    signal.signal(signal.SIGCHLD, _reap)
    gc.collect()
    gc.freeze()
    engine.send(READY)
    while True:
        packet, fds = handshake.receive_packet(engine)
        if not packet:
            return
        _serve(engine, json.loads(packet)["op"], fds)


def _reap(_signum: int, _frame: FrameType | None) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _serve(engine: socket.socket, op: str, fds: list[int]) -> None:
    control_fd, body = fds

    def child() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        engine.close()
        request: dict[str, Any] = json.loads(os.pread(body, os.fstat(body).st_size, 0))
        os.close(body)
        with socket.socket(fileno=control_fd) as control:
            _JOBS[op](request, control)

    process.fork(child)
    os.close(control_fd)
    os.close(body)
