"""Create, start and run."""

from __future__ import annotations

import argparse
import errno
import os
import time
from dataclasses import replace
from pathlib import Path

from runtime.kernel import process
from runtime.kernel.cgroups import detect
from runtime.oci import default, handshake, hooks, lifecycle, mountplan, seccomp_profile
from runtime.oci.command import console
from runtime.oci.command.attendant import Helper
from runtime.oci.command.log import Log
from runtime.oci.command.store import CommandFault, Container, Store
from runtime.oci.crew import Standalone, end
from runtime.oci.program import Streams
from runtime.oci.spec import Linux, Spec
from runtime.oci.spec_resources import DeviceRuleSpec
from runtime.oci.state import CONFIG, State

_FIRST_EXTRA = 3


def create(store: Store, options: argparse.Namespace, log: Log) -> int:
    """`create`: returns as soon as the init waits at its gate."""
    spec = load(options)
    if spec.process.terminal and not options.console_socket:
        raise CommandFault("The process wants a terminal and nobody is there to hold it.", "Give --console-socket.")
    make(store, options, spec, log)
    return 0


def start(store: Store, options: argparse.Namespace, log: Log) -> int:
    """`start`: returns as soon as the program runs."""
    open_gate(store.get(options.id), log)
    return 0


def run(store: Store, options: argparse.Namespace, log: Log) -> int:
    """`run`: the program's exit code; with --detach 0 as soon as it runs."""
    spec = load(options)
    holder = console.Holder() if spec.process.terminal and not options.console_socket else None
    if holder and options.detach:
        raise CommandFault("The process wants a terminal and nobody will hold it.", "Give --console-socket.")
    container, created = make(store, options, spec, log, holder)
    try:
        if options.detach:
            open_gate(container, log)
            return 0
        with console.signals() as waiting:
            open_gate(container, log)
            code = console.attend(created.pidfd, waiting, holder)
    except BaseException:
        end(created.pidfd)
        remove(container, log)
        raise
    if not options.keep:
        remove(container, log)
    return code


def load(options: argparse.Namespace) -> Spec:
    """The configuration with what depends on its place made absolute, so that only the copy in the store counts from now on."""
    bundle = options.bundle.resolve()
    path = options.config or bundle / CONFIG
    try:
        spec = Spec.read(path)
    except FileNotFoundError as error:
        raise CommandFault(
            f"There is no {path}.", "Name the bundle with --bundle; `spec` writes an example."
        ) from error
    mounts = tuple(
        replace(mount, source=str(bundle / mount.source)) if mount.source and mountplan.is_bind(mount) else mount
        for mount in spec.mounts
    )
    root = replace(spec.root, path=str(bundle / spec.root.path))
    return replace(spec, mounts=mounts, root=root, linux=_linux(spec.linux, options))


def _linux(linux: Linux, options: argparse.Namespace) -> Linux:
    if linux.intel_rdt:
        raise CommandFault("linux.intelRdt is not supported.", "Leave it out.")
    if linux.seccomp:
        seccomp_profile.check(linux.seccomp)
    devices = tuple(
        DeviceRuleSpec(allow=True, type="b" if d.type == "b" else "c", major=d.major, minor=d.minor)
        for d in linux.devices
        if d.type != "p"
    )
    rules = (default.DEVICE_RULES[0], *linux.resources.devices, *default.DEVICE_RULES[1:], *devices)
    return replace(linux, cgroups_path=_group(linux, options), resources=replace(linux.resources, devices=rules))


def _group(linux: Linux, options: argparse.Namespace) -> str:
    """The group's path from the hierarchies' roots, where a relative one begins too."""
    if options.cgroup_manager == "disabled":
        return ""
    path = linux.cgroups_path
    if ":" in path:
        raise CommandFault(f"linux.cgroupsPath is {path!r}, for systemd.", "Use the cgroupfs manager.")
    return path.strip("/") or f"moorage-oci-{options.id}"


def make(
    store: Store, options: argparse.Namespace, spec: Spec, log: Log, holder: console.Holder | None = None
) -> tuple[Container, lifecycle.Created]:
    """Up to the gate; raises with everything undone."""
    streams = Streams(0, 1, 2, further(options.preserve_fds))
    container = store.reserve(options.id)
    helper = Helper(container, spec, options.console_socket, holder)
    try:
        spec.write(container.folder / CONFIG)
        with container.listen() as gate:
            alone = Standalone(gate.fileno(), helper, not options.no_pivot, not options.no_new_keyring)
            created = lifecycle.create(
                container.folder,
                streams,
                None,
                record=lambda made: _record(container, made, options.bundle.resolve()),
                standalone=alone,
            )
        if options.pid_file:
            process.write_atomic(options.pid_file, str(created.pid).encode(), mode=0o644)
    except BaseException:
        if spec.hooks.poststop:
            hooks.run_warning(spec.hooks.poststop, helper.state("stopped"), log.warn)
        container.remove()
        raise
    created.gate.close()
    for child in created.children:
        os.waitpid(child, 0)
    for note in created.notes:
        log.warn(note)
    return container, created


def further(count: int) -> dict[int, int]:
    """Descriptors after 2 to hand on; where there is a gap, none."""
    found = {}
    for number in range(_FIRST_EXTRA, _FIRST_EXTRA + count):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        else:
            found[number] = number
    return found


def _record(container: Container, created: lifecycle.Created, bundle: Path) -> None:
    State(
        id=container.id,
        monitor=None,
        init=process.ProcessRef.of(created.pid),
        cgroup=created.cgroup,
        bundle=str(bundle),
        created_ns=time.time_ns(),
    ).write(container.folder)


def open_gate(container: Container, log: Log) -> None:
    """Let the program run; raises StartFailed when it could not be executed."""
    spec = container.spec()
    with container.connect() as gate:
        handshake.send(gate, handshake.Go())
        answer, _ = handshake.receive(gate)
    container.opened()
    if isinstance(answer, handshake.Failed):
        raise answer.error()
    if spec.hooks.poststart:
        hooks.run_warning(spec.hooks.poststart, Helper(container, spec).state("running"), log.warn)


def remove(container: Container, log: Log) -> None:
    """Take away what a container that has ended left."""
    state, spec = container.state(), container.spec()
    lifecycle.remove_group(detect(), state.cgroup if state else spec.linux.cgroups_path)
    if spec.hooks.poststop:
        hooks.run_warning(spec.hooks.poststop, Helper(container, spec).state("stopped"), log.warn)
    container.remove()
