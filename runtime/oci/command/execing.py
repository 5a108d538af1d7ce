"""Exec: a further program in a running container."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from runtime.kernel import process as processes
from runtime.oci import execution, handshake
from runtime.oci.command import console
from runtime.oci.command.attendant import Helper
from runtime.oci.command.log import Log
from runtime.oci.command.making import further
from runtime.oci.command.store import CommandFault, Store
from runtime.oci.crew import await_ready, end
from runtime.oci.fields import decode, loads
from runtime.oci.program import Streams
from runtime.oci.spec import Capabilities, Process, Spec, User


def execute(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`exec`: the program's exit code; with --detach 0 as soon as it runs."""
    container = store.get(options.id)
    state, status = container.state(), container.status()
    if state is None or (status not in ("running", "created") and not (status == "paused" and options.ignore_paused)):
        raise CommandFault(f"The container {container.id} is {status}, not running.")
    spec = container.spec()
    spec = replace(spec, process=_wanted(spec, options))
    holder = console.Holder() if spec.process.terminal and not options.console_socket else None
    if holder and options.detach:
        raise CommandFault("The process wants a terminal and nobody will hold it.", "Give --console-socket.")
    streams = Streams(0, 1, 2, further(options.preserve_fds))
    pid, gate = execution.enter(spec, state, streams, _group(state.cgroup, options.cgroup))
    pidfd = os.pidfd_open(pid)
    try:
        await_ready(gate, None, Helper(container, spec, options.console_socket, holder))
        if options.pid_file:
            processes.write_atomic(options.pid_file, str(pid).encode(), mode=0o644)
        with console.signals() as waiting:
            handshake.try_send(gate, handshake.Go())
            answer, _ = handshake.receive(gate)
            if isinstance(answer, handshake.Failed):
                raise answer.error()
            return 0 if options.detach else console.attend(pidfd, waiting, holder)
    except BaseException:
        end(pidfd)
        raise


def _group(own: str, wanted: list[str]) -> str:
    """The container's group, or one below it."""
    if not wanted:
        return own
    path = wanted[-1].rpartition(":")[2].strip("/")
    if not own or len(wanted) > 1 or ".." in path.split("/"):
        raise CommandFault(f"--cgroup {' '.join(wanted)} is not one group below the container's.", "Give one path.")
    return f"{own}/{path}" if path else own


def _wanted(spec: Spec, options: argparse.Namespace) -> Process:
    if options.process:
        return decode(Process, loads(options.process.read_bytes(), str(options.process)), "process")
    if not options.args:
        raise CommandFault("No program is named.", "Give it after the id, or --process FILE.")
    own = spec.process
    changed = replace(
        own,
        args=tuple(options.args[1:] if options.args[0] == "--" else options.args),
        env=(*own.env, *options.env),
        cwd=options.cwd or own.cwd,
        terminal=options.tty,
        user=_user(own.user, options),
        capabilities=_with(own.capabilities, tuple(options.cap)),
        no_new_privileges=own.no_new_privileges if options.no_new_privs is None else options.no_new_privs,
    )
    return replace(
        changed,
        apparmor_profile=options.apparmor or own.apparmor_profile,
        selinux_label=options.process_label or own.selinux_label,
    )


def _user(own: User, options: argparse.Namespace) -> User:
    if not options.user:
        return replace(own, additional_gids=(*own.additional_gids, *options.additional_gids))
    uid, _, gid = options.user.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise CommandFault(f"--user is {options.user!r}.", "Give numbers, UID or UID:GID.")
    return User(uid=int(uid), gid=int(gid or 0), umask=own.umask, additional_gids=tuple(options.additional_gids))


def _with(sets: Capabilities, more: tuple[str, ...]) -> Capabilities:
    return Capabilities(
        bounding=(*sets.bounding, *more),
        effective=(*sets.effective, *more),
        inheritable=sets.inheritable,
        permitted=(*sets.permitted, *more),
        ambient=sets.ambient,
    )
