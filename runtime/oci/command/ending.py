"""Kill, delete, pause and resume."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal

from runtime.kernel.cgroups import detect
from runtime.oci.command.log import Log
from runtime.oci.command.making import remove
from runtime.oci.command.store import CommandFault, Container, Store
from runtime.oci.crew import end
from runtime.oci.state import State


def kill(store: Store, options: argparse.Namespace, log: Log) -> int:
    """`kill`: by name ("SIGTERM", "term") or number."""
    signum = number(options.signal)
    for container in store.matching(options.id) if options.regex else [store.get(options.id)]:
        log.say(f"signal {signum} to {container.id}")
        _signal(container, signum, everybody=options.all)
    return 0


def number(text: str) -> signal.Signals | int:
    """A signal's number; raises CommandFault."""
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    name = f"SIG{text.upper().removeprefix('SIG')}"
    if name in signal.Signals.__members__:
        return signal.Signals[name]
    raise CommandFault(f"{text!r} is no signal.", "Use a number or a name like SIGTERM.")


def _signal(container: Container, signum: int, *, everybody: bool) -> None:
    state = container.state()
    alone = container.spec().linux.namespace("pid") is None  # nobody takes its other processes along
    if state and (everybody or (alone and signum == signal.SIGKILL)) and state.cgroup:
        if signum == signal.SIGKILL:
            detect().kill(state.cgroup)
            return
        for pid in detect().pids(state.cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        return
    pidfd = state.init.open() if state else None
    if pidfd is None:
        raise CommandFault(f"The container {container.id} is not running.")
    signal.pidfd_send_signal(pidfd, signum)


def delete(store: Store, options: argparse.Namespace, log: Log) -> int:
    """`delete`: one that has ended or was never started; any with --force."""
    if options.regex:
        found = store.matching(options.id)
    elif options.force and not (store.root / options.id).is_dir():
        found = []
    elif options.force:
        found = [Container(store.root / store.check(options.id))]
    else:
        found = [store.get(options.id)]
    for container in found:
        _delete(container, log, force=options.force)
    return 0


def _delete(container: Container, log: Log, *, force: bool) -> None:
    state, status = container.state(), container.status()
    if status in ("running", "paused") and not force:
        raise CommandFault(f"The container {container.id} is {status}.", "Kill it first, or use --force.")
    if status == "creating" and not force:
        raise CommandFault(f"The container {container.id} is being created.", "Wait, or use --force.")
    if state:
        _end(state)
    if not (container.folder / "config.json").exists():
        container.remove()
        return
    remove(container, log)


def _end(state: State) -> None:
    pidfd = state.init.open()
    if state.cgroup:
        detect().kill(state.cgroup)
    if pidfd is not None:
        end(pidfd)


def pause(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`pause`."""
    _freeze(store.get(options.id), ("running", "created"), frozen=True)
    return 0


def resume(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`resume`."""
    _freeze(store.get(options.id), ("paused",), frozen=False)
    return 0


def _freeze(container: Container, wanted: tuple[str, ...], *, frozen: bool) -> None:
    state, status = container.state(), container.status()
    if state is None or status not in wanted:
        raise CommandFault(f"The container {container.id} is {status}, not {' or '.join(wanted)}.")
    if not state.cgroup:
        raise CommandFault(f"The container {container.id} has no group to stop.", "Create it with a cgroup manager.")
    detect().freeze(state.cgroup, frozen=frozen)
