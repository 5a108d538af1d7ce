"""Keeps one daemon that must outlive its supervisor: starts it in a session of its own, or finds it running.

Run as `python -I -S keep.py RECORD CODE LOG -- COMMAND…` by supervisor. The daemon's death ends the keeper, and supervisor
starts both again; the keeper's own end (Ctrl-C, make up again) leaves the daemon alone. A daemon started from other code
(CODE differs from the record's) is asked to end first. Standard library only: two of these run all the time.
"""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import sys
from pathlib import Path
from types import ModuleType


def _load_records() -> ModuleType:
    spec = importlib.util.spec_from_file_location("records", Path(__file__).with_name("records.py"))
    if spec is None or spec.loader is None:
        raise ImportError("records.py is missing beside keep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(command: list[str], log: str) -> int:
    """Start a command in its own session with output to `log`; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(3, 256)
        os.execvp(command[0], command)
    finally:
        os._exit(127)


def main(argv: list[str]) -> int:
    """Find or start the daemon and wait for its end; the exit status is 1 when it ended, 0 when asked to go."""
    records = _load_records()
    record_path, code, log = Path(argv[1]), argv[2], argv[3]
    command = argv[argv.index("--") + 1 :]
    signal.set_wakeup_fd((pipe := os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))[1])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    record = records.read(record_path)
    if record is not None and record["code"] != code:
        records.end(record)
        record = None
    if record is None:
        pid = start(command, log)
        records.write(record_path, pid, code)
    else:
        pid = record["pid"]
    fd = os.pidfd_open(pid)
    ready, _, _ = select.select([fd, pipe[0]], [], [])
    return 1 if fd in ready else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
