"""In the guest, where loading the engine's modules takes many seconds: a process that has them, and forks an engine when asked.

What runs is the engine's own `main` with its arguments, in a session of its own, as `python -m runtime.engine` would.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


class Forked:
    """An engine, as subprocess.Popen would be one."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self._warm, self.pid = warm, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self._warm.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            with contextlib.closing(os.fdopen(os.pidfd_open(self.pid))) as pidfd:
                if not select.select([pidfd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("engine", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=(theirs.fileno(),))
        theirs.close()

    def ask(self, order: dict[str, object]) -> int | None:
        """One order, one answer."""
        self._socket.send(json.dumps(order).encode())
        answer = self._socket.recv(64)
        assert answer, "the warm process has ended"
        found: int | None = json.loads(answer)
        return found

    def fork(self, command: list[str], log: Path) -> Forked:
        """`command` is what an interpreter would be given: -m runtime.engine, or -c and a program, and arguments."""
        pid = self.ask({"command": command, "log": str(log)})
        assert pid
        return Forked(self, pid)


@cache
def warm() -> Warm:
    """One for all tests."""
    return Warm()


def serve(control: socket.socket) -> None:
    """Fork and reap as asked, until nobody can ask any more."""
    while packet := control.recv(1 << 16):
        order = json.loads(packet)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                become(order["command"], order["log"])
        control.send(json.dumps(answer).encode())


def become(command: list[str], log: str) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.argv = ["-c", *command[2:]]
        if command[:2] == ["-m", "runtime.engine"]:
            from runtime.engine import __main__ as engine

            code = engine.main(command[2:])
        else:
            exec(command[1], {"__name__": "__main__"})
            code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:  # noqa: BLE001  the boundary of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Load all that an engine does."""
    from runtime.engine import __main__, daemon  # noqa: F401
    from tests.runtime.root.steps import places  # noqa: F401

    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
