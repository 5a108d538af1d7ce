"""Hooks (config.md, "POSIX-platform Hooks"): programs that are told the container's state on their stdin.

Run by fork and execve alone, since two of the six kinds run where the host's interpreter cannot load modules any more.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence

from runtime.errors import RuntimeFault
from runtime.kernel import process
from runtime.oci.spec import Hook

_KEPT_OUTPUT = 2000


class HookFailed(RuntimeFault):
    """A hook could not be run, ended with another status than 0, or took too long."""


def run_all(hooks: Sequence[Hook], state: str) -> None:
    """One after the other; raises HookFailed at the first that fails."""
    for hook in hooks:
        run(hook, state)


def run_warning(hooks: Sequence[Hook], state: str, warn: Callable[[str], None]) -> None:
    """All of them, whatever happens; what fails is a warning."""
    for hook in hooks:
        try:
            run(hook, state)
        except HookFailed as error:
            warn(str(error))


def run(hook: Hook, state: str) -> None:
    """Run one hook to its end; its output, stdout and stderr, is kept for the error."""
    told, telling = os.pipe()
    heard, saying = os.pipe()

    def child() -> None:
        os.dup2(told, 0)
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        env = dict(entry.partition("=")[::2] for entry in hook.env)
        try:
            os.execve(hook.path, list(hook.args) or [hook.path], env)
        except OSError as error:
            os.write(2, (error.strerror or str(error)).encode())
            os._exit(127)

    pid = process.fork(child)
    pidfd = os.pidfd_open(pid)
    os.close(told)
    os.close(saying)
    try:
        output = _attend(telling, heard, state.encode(), pidfd, hook)
        code, signum = process.wait_pidfd(pidfd)
    finally:
        os.close(heard)
        os.close(pidfd)
    if code:
        words = f"signal {signum}" if signum else f"status {code}"
        raise HookFailed(f"The hook {hook.path} ended with {words}: {output.decode(errors='replace').strip()}")


def _attend(telling: int, heard: int, state: bytes, pidfd: int, hook: Hook) -> bytes:
    """Feed it and listen until it has ended or its time is up."""
    poll = select.poll()
    poll.register(heard, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    _tell(telling, state)
    output, deadline = b"", None if hook.timeout is None else _now() + hook.timeout
    while True:
        events = dict(poll.poll(None if deadline is None else max(0, int((deadline - _now()) * 1000))))
        if heard in events:
            read = os.read(heard, 4096)
            output = (output + read)[:_KEPT_OUTPUT]
            if not read:
                poll.unregister(heard)
        elif pidfd in events:
            return output
        elif deadline is not None and _now() >= deadline:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            process.wait_pidfd(pidfd)
            raise HookFailed(f"The hook {hook.path} took longer than its {hook.timeout} s and was ended.")


def _tell(telling: int, state: bytes) -> None:
    """The state fits into the pipe's buffer of 64 kB, so nobody has to wait; one that reads nothing is no error."""
    ignored = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(telling, state[: 64 << 10])
    except BrokenPipeError:
        pass
    finally:
        os.close(telling)
        signal.signal(signal.SIGPIPE, ignored)


def _now() -> float:
    return os.times().elapsed
