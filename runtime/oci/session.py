"""One program's life under a monitor: gate, output, attach clients, end. A single epoll loop, shared by containers and execs."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from runtime.dataclass import dataclass
from runtime.kernel import process
from runtime.oci import handshake, program
from runtime.oci.attach import Attach
from runtime.oci.logfile import Lines, LogFile, TokenBucket
from runtime.oci.program import Streams

READ_BYTES = 64 << 10
TAIL_WAIT_S = 0.1  # how long an unfinished line may wait for its rest
DRAIN_BYTES = 1 << 20
CLIENT_DRAIN_S = 2.0
NOTE_EVERY_S = 10.0


class Phase(Enum):
    """Where the program stands."""

    PARKED = auto()
    STARTING = auto()
    RUNNING = auto()
    FAILED = auto()


@dataclass(slots=True)
class Output:
    """The reading end of one stream's pipe, or a terminal."""

    fd: int
    number: int
    lines: Lines | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Pipes:
    """Both ends of the standard streams; `stdin` is ours, -1 without."""

    stdin: int
    stdout: int
    stderr: int
    theirs: Streams

    @classmethod
    def make(cls, *, stdin: bool) -> Pipes:
        """New pipes; ours do not block."""
        in_r, in_w = os.pipe() if stdin else (-1, -1)
        (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe()
        for fd in (in_w, out_r, err_r):
            if fd >= 0:
                os.set_blocking(fd, False)
        return cls(in_w, out_r, err_r, Streams(in_r, out_w, err_w))

    def close_theirs(self) -> None:
        """Close the program's ends in this process."""
        for fd in (self.theirs.stdin, self.theirs.stdout, self.theirs.stderr):
            if fd >= 0:
                os.close(fd)


class Session:
    """Runs until the program has ended, or the gate was given up."""

    def __init__(
        self,
        *,
        control: socket.socket,
        pipes: Pipes,
        attach: str,
        log: LogFile | None = None,
        rate_bps: int = 0,
        discard: bool = False,
    ) -> None:
        self.phase = Phase.PARKED
        self.started_ns = 0
        self.log = log
        self.bucket = TokenBucket(rate_bps)
        self._discard = discard
        self._control: socket.socket | None = control
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._ended = False
        self._noted_at = -NOTE_EVERY_S
        self._terminal = False
        self.bound_group = 0  # the program's process group, where it ends when control closes
        self._outputs = [
            Output(fd, number, Lines(log, tag) if log else None)
            for fd, number, tag in ((pipes.stdout, 1, b"o"), (pipes.stderr, 2, b"e"))
        ]
        self.attach = Attach(attach, self._epoll, self._handlers, lossless=log is None, on_order=self._obey)
        self.attach.stdin_fd = pipes.stdin

    def take_terminal(self, fd: int) -> None:
        """The program has a terminal in place of its pipes, this its other side: what it prints counts as stdout."""
        os.set_blocking(fd, False)
        for output in self._outputs:
            os.close(output.fd)
        self._terminal = True
        self._outputs = [Output(fd, 1, self._outputs[0].lines)]
        self.attach.take_terminal(fd)

    def _watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)

    def take(
        self, gate: socket.socket, pidfd: int, on_started: Callable[[int], None], *, gate_open: bool = False
    ) -> None:
        """The program that waits at its gate, which has been opened, else opens when control says so.

        `on_started` is called with the start time once execve has succeeded.
        """
        self._gate, self._pidfd, self._on_started = gate, pidfd, on_started
        self._watch(gate.fileno(), self._on_gate)
        self._watch(pidfd, self._on_exit)
        if self._control:
            self._watch(self._control.fileno(), self._on_control)
        if gate_open:
            self.phase = Phase.STARTING

    def reap(self, pid: int) -> None:
        """Take note of a child's end, whenever it comes."""
        pidfd = os.pidfd_open(pid)

        def on_end(_events: int) -> None:
            self._unwatch(pidfd)
            os.close(pidfd)
            os.waitpid(pid, 0)

        self._watch(pidfd, on_end)

    def run(self) -> tuple[int, int]:
        """Until the program has ended: (exit code, signal)."""
        while not self._ended:
            self._schedule_outputs()
            for fd, events in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(fd)
                if handler:
                    handler(events)
        self._finish_start()
        self._drain()
        self.bound_group = 0  # another's from now on
        return process.wait_pidfd(self._pidfd)

    def _timeout(self) -> float | None:
        waits = []
        if any(output.lines and output.lines.tail for output in self._outputs):
            waits.append(TAIL_WAIT_S)
        if self.bucket.rate and not all(output.watched for output in self._outputs):
            waits.append(self.bucket.wait_s(READ_BYTES) or 0.001)
        return min(waits, default=None)

    def _schedule_outputs(self) -> None:
        """Read from the program while there is allowance and room; flush unfinished lines that waited long enough."""
        now = time.monotonic()
        open_ = not self.attach.backlogged() and (
            self.log is not None or self._discard or self.attach.has_readers() or self.attach.seen > 0
        )
        if open_ and self.bucket.rate and self.bucket.allowance(now) < min(READ_BYTES, self.bucket.rate // 8 + 1):
            open_ = False
            self._note_rate(now)
        for output in self._outputs:
            if output.fd < 0 or output.watched == open_:
                continue
            output.watched = open_
            if open_:
                self._watch(output.fd, lambda _events, output=output: self._on_output(output))  # type: ignore[misc]
            else:
                self._unwatch(output.fd)
        if self.log:
            self._flush_tails(now)

    def _flush_tails(self, now: float) -> None:
        for output in self._outputs:
            lines = output.lines
            if lines and lines.tail and now - lines.fed_at >= TAIL_WAIT_S:
                lines.flush()

    def _note_rate(self, now: float) -> None:
        if self.log and now - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self.log.note(f"log output is held to {self.bucket.rate} bytes per second by the plan; the program waits")

    def _on_output(self, output: Output) -> None:
        count = READ_BYTES
        if self.bucket.rate:
            count = max(1, min(count, self.bucket.allowance(time.monotonic())))
        chunk = _read(output.fd, count)
        if chunk is None:
            return
        if not chunk:
            self._close_output(output)
            return
        self._take(output, chunk)

    def _take(self, output: Output, chunk: bytes) -> None:
        if self.bucket.rate:
            self.bucket.take(len(chunk))
        if output.lines:
            output.lines.feed(chunk)
        if self.attach.clients:
            self.attach.send(output.number, chunk)

    def _close_output(self, output: Output) -> None:
        if output.lines:
            output.lines.flush(end=True)
        self._unwatch(output.fd)
        os.close(output.fd)
        output.fd, output.watched = -1, True

    def _on_control(self, _events: int) -> None:
        assert self._control
        message, _ = handshake.receive(self._control)
        if isinstance(message, handshake.Go) and self.phase is Phase.PARKED:
            self._open_gate()
        if message is not None:
            return
        self._unwatch(self._control.fileno())
        self._control.close()
        self._control = None
        if self.phase is Phase.PARKED:
            self.phase = Phase.FAILED
            self.kill()
        elif self.bound_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.bound_group, signal.SIGKILL)

    def _open_gate(self) -> None:
        self.phase = Phase.STARTING
        handshake.try_send(self._gate, handshake.Go())

    def kill(self) -> None:
        """End the program."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_gate(self, _events: int) -> None:
        message, _ = handshake.receive(self._gate)
        self._unwatch(self._gate.fileno())
        self._gate.close()
        if self.phase is not Phase.STARTING:
            self.phase = Phase.FAILED
            return
        if isinstance(message, handshake.Failed):
            self.phase = Phase.FAILED
            self._tell(message)
            return
        self.phase = Phase.RUNNING
        self.started_ns = time.time_ns()
        self._on_started(self.started_ns)
        self._tell(handshake.Started(self.started_ns))

    def _tell(self, message: handshake.Message) -> None:
        if self._control:
            handshake.try_send(self._control, message)

    def _on_exit(self, _events: int) -> None:
        self._ended = True

    def _finish_start(self) -> None:
        """A program may end before its gate's closing was seen."""
        if self._gate.fileno() >= 0:
            self._on_gate(0)

    def _drain(self) -> None:
        """Take what lies in the pipes, up to a bound: the program may have handed its end to somebody who goes on writing."""
        for output in self._outputs:
            left = DRAIN_BYTES
            while output.fd >= 0 and left > 0:
                chunk = _read(output.fd, READ_BYTES)
                if not chunk:
                    break
                left -= len(chunk)
                self._take(output, chunk)
            if output.fd >= 0:
                self._close_output(output)

    def finish_clients(self) -> None:
        """Let attached clients read the rest, for a bounded time where the log has it too, then close."""
        end = time.monotonic() + CLIENT_DRAIN_S if self.log else math.inf
        while self.attach.pending() and (left := end - time.monotonic()) > 0:
            for fd, events in self._epoll.poll(min(left, CLIENT_DRAIN_S)):
                handler = self._handlers.get(fd)
                if handler:
                    handler(events)
        self.attach.close()

    def _obey(self, order: dict[str, Any]) -> None:
        """What a client of the attach socket wants changed."""
        if self.log and order.get("log") is not None:
            self._set_log(self.log, order["log"])
        terminal = self._outputs[0].fd if self._terminal else -1
        if terminal >= 0 and order.get("size") is not None:
            program.resize(terminal, *order["size"])

    def _set_log(self, log: LogFile, options: dict[str, Any]) -> None:
        self.bucket.set_rate(int(options.get("rate_bps", 0)))
        log.set_limits(
            file_bytes=int(options.get("file_bytes", 16 << 20)), total_bytes=int(options.get("total_bytes", 0))
        )


def _read(fd: int, count: int) -> bytes | None:
    """None when there is nothing yet, b"" at the end: a terminal that no program holds any more answers EIO."""
    try:
        return os.read(fd, count)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""
