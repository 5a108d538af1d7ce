"""Where the children come from that unpack and read tenants' files: one small process a load, pull or save, forked for each layer.

A fresh interpreter takes as long as a layer of some megabytes, a fork of one that has read its modules a hundredth of that.
The nursery itself touches nothing of a tenant's; it ends with the socket that asks it.

    with Nursery() as nursery:
        child = nursery.start("extract", {...}, {"root": fd, "stdin": fd, "stdout": fd})
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parent.parent.parent
# -I ignores the environment and the working folder; the way to this code is given as text
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.images.nursery import main; main()"
_REQUEST_BYTES, _DESCRIPTORS = 64 << 10, 8
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


class Child:
    """A process of the nursery's, held by a pidfd."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._pidfd >= 0:
            select.select([self._pidfd], [], [])
            os.close(self._pidfd)
            self._pidfd = -1

    def end(self) -> None:
        """Kill it if it still runs; harmless afterwards."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait()


class Nursery:
    """Starts with its first child. Thread-safe. Its children outlive it: who starts one ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self, program: str, options: Mapping[str, Any], descriptors: Mapping[str, int]) -> Child:
        """A child that runs `program` ("extract", "pack"); what is in `descriptors` is open there, named in its options."""
        request = json.dumps({"program": program, "options": dict(options), "names": list(descriptors)}).encode()
        with self._lock:
            channel = self._channel or self._open()
            socket.send_fds(channel, [request], list(descriptors.values()))
            data, found, _, _ = socket.recv_fds(channel, 16, 1)
        if not data or not found:
            raise OSError("the process that starts the children for layers has ended")
        os.set_inheritable(found[0], False)
        return Child(found[0])

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, str(_ROOT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = ours
        return ours

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait()
            self._channel = self._process = None


def main() -> None:
    """The nursery's own process."""
    from runtime.images import extract, pack

    programs: dict[str, Callable[[dict[str, Any]], None]] = {"extract": extract.main, "pack": pack.main}
    channel = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, _DESCRIPTORS)
        if not data:
            os._exit(0)
        request = json.loads(data)
        named = dict(zip(request["names"], descriptors, strict=True))
        pid = os.fork()
        if not pid:
            _be_child(channel, programs[request["program"]], request["options"], named)
        pidfd = os.pidfd_open(pid)  # it may have ended: nobody waits before
        socket.send_fds(channel, [b"+"], [pidfd])
        for fd in (pidfd, *descriptors):
            os.close(fd)
        _reap()


def _be_child(
    channel: socket.socket, program: Callable[[dict[str, Any]], None], options: dict[str, Any], named: dict[str, int]
) -> None:
    """Never returns."""
    try:
        channel.close()
        for name, number in _STANDARD.items():
            if name in named:
                fd = named.pop(name)
                os.dup2(fd, number)
                os.close(fd)
        program(options | named)
    finally:
        os._exit(1)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
