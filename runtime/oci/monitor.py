"""The parent of one container, in a session of its own: makes it, keeps its output, writes how it ended, takes it away.

It outlives engine and launcher; nothing but its container ends it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.kernel import process
from runtime.kernel.cgroups import CgroupFault, Cgroups, detect
from runtime.oci import handshake, lifecycle, maker
from runtime.oci.logfile import LogFile
from runtime.oci.maker import Maker
from runtime.oci.session import Phase, Pipes, Session
from runtime.oci.state import LOG_FOLDER, STARTED, STATE, ExitRecord


def run(request: dict[str, Any], control: socket.socket, complete: int, parked: Maker | None = None) -> None:
    """Everything a monitor does, from the launcher's fork to its end. `request` is a LaunchRequest as JSON.

    `complete` is as in `Crew.order`. `parked` is a maker that was forked ahead, if there is one.
    """
    process.set_name("moorage-monitor")
    try:
        if parked and not parked.waits():
            parked.dismiss()
            parked = None
        _live(request, control, complete, parked or maker.park())
    except (OSError, ValueError, RuntimeFault) as error:
        fault = error if isinstance(error, OSError | RuntimeFault) else RuntimeFault(str(error))
        handshake.try_send(control, handshake.Failed.of("2 monitor", fault))


def _live(request: dict[str, Any], control: socket.socket, complete: int, hand: Maker) -> None:
    bundle, attach = request["bundle"], request["attach"]
    pipes = Pipes.make(stdin=request["stdin"])
    hand.order(bundle, pipes.theirs, control, attach, complete, go=request["go"])
    if complete >= 0:
        os.close(complete)
    with ExitStack() as undo:
        try:
            session = _session(request, control, pipes)
            undo.callback(session.attach.close)
        finally:  # also to have something to undo
            created = hand.made(bundle)
            undo.callback((Path(bundle) / STATE).unlink, missing_ok=True)
            undo.callback(lifecycle.undo, created)
        pipes.close_theirs()
        if created.terminal >= 0:
            session.take_terminal(created.terminal)
        for note in created.notes:
            assert session.log
            session.log.note(note)
        _say_ready(control, created)
        undo.pop_all()

    started = f"{bundle}/{STARTED}"
    gate_open = request["go"]
    session.take(created.gate, created.pidfd, lambda at: process.write_small(started, b"%d" % at), gate_open=gate_open)
    session.reap(hand.pid)
    for child in created.children:
        os.waitpid(child, 0)
    for child in process.children():
        if child not in (hand.pid, created.pid):  # the init of a crew that was not taken
            os.waitpid(child, os.WNOHANG)
    code, signum = session.run()
    _end(Path(bundle), session, created, code, signum)


def _session(request: dict[str, Any], control: socket.socket, pipes: Pipes) -> Session:
    options = request["log"]
    log = LogFile(
        f"{request['bundle']}/{LOG_FOLDER}", file_bytes=options["file_bytes"], total_bytes=options["total_bytes"]
    )
    session = Session(control=control, pipes=pipes, attach=request["attach"], log=log, rate_bps=options["rate_bps"])
    session.attach.stdin_once = request["stdin_once"]
    return session


def _end(bundle: Path, session: Session, created: lifecycle.Created, code: int, signum: int) -> None:
    cgroups, log = detect(), session.log
    if session.phase is Phase.RUNNING:
        _record(cgroups, created.cgroup, session.started_ns, code, signum).write(bundle)
    if log and log.lost_bytes:
        log.note(f"{log.lost_bytes} bytes of output were lost: the host's disk is full")
    session.finish_clients()
    take_away(cgroups, created.cgroup)
    if session.phase is not Phase.RUNNING:
        (bundle / STATE).unlink(missing_ok=True)


def _say_ready(control: socket.socket, created: lifecycle.Created) -> None:
    own = os.pidfd_open(os.getpid())
    try:
        handshake.send(control, handshake.Ready(os.getpid(), created.pid, created.loop), [own])
    finally:
        os.close(own)


def _record(cgroups: Cgroups, group: str, started_ns: int, code: int, signum: int) -> ExitRecord:
    kills, limit, usage = 0, 0, {}
    with contextlib.suppress(OSError):
        sample = cgroups.sample(group)
        kills, limit = sample.oom_kills, sample.memory_limit_bytes
        usage = {"cpu_ns": sample.cpu_ns, "read_bytes": sample.read_bytes, "write_bytes": sample.write_bytes}
    reason = f"killed for want of memory: all of its {limit >> 20} MB were in use" if kills and limit else ""
    return ExitRecord(
        code=code,
        signal=signum,
        oom_killed=kills > 0,
        oom_kills=kills,
        started_ns=started_ns,
        finished_ns=time.time_ns(),
        memory_limit_bytes=limit,
        reason=reason,
        usage=usage,
    )


def take_away(cgroups: Cgroups, group: str) -> None:
    """End what is left in the group (an exec on its way, say) and remove it."""
    with contextlib.suppress(CgroupFault, OSError):  # `reap_orphan` and doctor find what stays
        cgroups.kill(group)
        cgroups.remove(group)
