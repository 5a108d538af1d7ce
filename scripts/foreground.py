"""The process `make up` stays as: runs supervisor, says "ready", and starts it anew when it is killed.

Run as `python -I -S foreground.py SUPERVISORD CONFIG WEB_SOCKET PORTAL_HOST LOG_FOLDER`. It is a subreaper, so what a killed supervisor leaves
behind becomes its child; those end by themselves (they hold a parent-death signal) and are waited for before the next start.
Standard library only and few imports: it runs as long as the platform does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
READY_WITHIN_S = 60.0


def say(text: str) -> None:
    """A line for whoever looks: by write(2), which a signal handler may call in the middle of another, and whose end may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, text.encode() + b"\n")


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def connect(door: str) -> socket.socket:
    """A connection to a unix socket's path or to "address port"."""
    if door.startswith("/"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(door)
        return client
    address, port = door.split()
    return socket.create_connection((address, int(port)), 15)


def readiness(door: str, host: str) -> str:
    """Empty when `/readyz` answers 200 through that door, else what it says."""
    try:
        with connect(door) as client:
            client.sendall(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while part := client.recv(65536):
                answer += part
    except OSError as error:
        return f"the portal does not answer yet ({error.strerror or error})"
    head, _, body = answer.partition(b"\r\n\r\n")
    return "" if b" 200 " in head.split(b"\r\n")[0] else body.decode(errors="replace")


class Foreground:
    """Holds supervisor's pid and whether we were asked to end."""

    def __init__(self, argv: list[str]) -> None:
        self.supervisord, self.config, self.web_socket, self.entrance, self.host, self.logs = argv[1:7]
        self.pid = 0
        self.ending = False

    def start(self) -> None:
        """Start supervisord in a process group of its own, so that only we decide when it ends."""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                os.execv(sys.executable, [sys.executable, self.supervisord, "-c", self.config])
            finally:
                os._exit(127)

    def on_signal(self, number: int, _frame: object) -> None:
        """Ctrl-C or SIGTERM: pass it on once as SIGTERM."""
        if not self.ending:
            self.ending = True
            say(
                "ending web, control, worker, agent and Valkey; apps, engine and HAProxy go on (make down ends everything)."
            )
            if self.pid:
                os.kill(self.pid, signal.SIGTERM)

    def announce(self) -> None:
        """Print "ready" when the portal is, or what is missing when it takes too long."""
        started = time.monotonic()
        while not self.ending:
            # The portal first, whose answer comes at once; then the way people take to it.
            missing = readiness(self.web_socket, self.host) or readiness(self.entrance, self.host)
            if not missing:
                say(f"ready after {time.monotonic() - started:.1f} s")
                return
            if time.monotonic() - started > READY_WITHIN_S:
                say(f"not ready after {READY_WITHIN_S:.0f} s: {missing.strip()} (logs: {self.logs})")
                return
            time.sleep(0.1)

    def run(self) -> int:
        """Wait for supervisor; start it again when it died without being asked to."""
        announced = False
        while True:
            self.start()
            if self.ending:  # asked between two lines of start
                os.kill(self.pid, signal.SIGTERM)
            if not announced:
                self.announce()
                announced = True
            while os.waitpid(-1, 0)[0] != self.pid:
                continue
            if self.ending:
                return 0
            say("supervisor was killed: starting it again.")
            self.await_orphans()

    def await_orphans(self) -> None:
        """Wait until what supervisor ran has ended; daemons in sessions of their own stay."""
        own = os.getsid(0)
        while True:
            children = [pid for pid in _children() if _session(pid) == own]
            if not children:
                return
            os.waitpid(children[0], 0)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 (pathlib costs memory here)
        return [int(word) for word in file.read().split()]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def main(argv: list[str]) -> int:
    """Run until asked to end."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    foreground = Foreground(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, foreground.on_signal)
    return foreground.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
