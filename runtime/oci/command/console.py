"""Waiting for a program in the foreground: its terminal and its signals go through this process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator

from runtime.kernel import process

_READ_BYTES = 32 << 10
_NOT_FORWARDED = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH}


class Holder:
    """Holds the terminal of a program that has nobody else to."""

    def __init__(self) -> None:
        self.fd = -1

    def take(self, fd: int) -> None:
        """The other side of the program's terminal."""
        self.fd = fd
        os.set_inheritable(fd, False)
        self.resize()

    def resize(self) -> None:
        """Give it the size of this process's own terminal."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """This process's terminal hands on every key."""
        if not os.isatty(0):
            yield
            return
        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def attend(pidfd: int, waiting: int, holder: Holder | None) -> int:
    """Until the program has ended: its exit code, 128 + n after signal n. What it printed on a terminal is all out by then.

    `waiting` is the pipe of `signals`, which is there before the program runs.
    """
    with holder.raw() if holder and holder.fd >= 0 else contextlib.nullcontext():
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(waiting, select.POLLIN)
        if holder and holder.fd >= 0:
            poll.register(holder.fd, select.POLLIN)
            poll.register(0, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if waiting in events:
                _forward(os.read(waiting, 1)[0], pidfd, holder)
            if holder and holder.fd in events and not _copy(holder.fd, 1):
                poll.unregister(holder.fd)
            if 0 in events and holder and not _copy(0, holder.fd):
                poll.unregister(0)
            if pidfd in events and not (holder and events.get(holder.fd, 0) & select.POLLIN):
                break
    code, _signum = process.wait_pidfd(pidfd)
    return code


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """A pipe with the numbers of signals that come from now on, to hand them on."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    old = {}
    for number in signal.valid_signals() - _NOT_FORWARDED | {signal.SIGWINCH}:
        with contextlib.suppress(OSError, ValueError):
            old[number] = signal.signal(number, lambda _signum, _frame: None)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _forward(number: int, pidfd: int, holder: Holder | None) -> None:
    if number == signal.SIGWINCH and holder:
        holder.resize()
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _copy(source: int, target: int) -> bool:
    """One piece; False at the end. A terminal whose program has gone answers EIO."""
    try:
        data = os.read(source, _READ_BYTES)
    except OSError:
        return False
    while data:
        written = os.write(target, data)
        if written == len(data):
            return True
        data = data[written:]
    return False


def flush() -> None:
    """What was printed is out before a program shares the same streams."""
    sys.stdout.flush()
    sys.stderr.flush()
