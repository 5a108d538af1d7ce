"""Making one container up to its start gate: the steps 2 and 3, in a short-lived maker (maker.py). Numbers as in init.py.

Whatever was acquired is undone in reverse when a step fails or the far end gives up.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from runtime.dataclass import dataclass
from runtime.kernel.cgroups import Cgroups, Resources, detect
from runtime.oci import handshake, labels, limits, nsplan, program, scheduling, sysctl
from runtime.oci.crew import Crew, Standalone, TerminalHolder, await_ready, end, gather, step
from runtime.oci.fields import SpecFault
from runtime.oci.program import Streams
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG

if TYPE_CHECKING:
    from runtime.oci.netdevices import Lender

HOST_IDS = 65_536  # in all distributions accounts lie below (user_namespaces(7), shadow's UID_MAX)


@dataclass(frozen=True, slots=True)
class Created:
    """An init that waits at its gate. `gate` is the socket to it; its closing without a message means that execve succeeded.

    `children` are further children of the monitor's, which have ended. `terminal` is the other side of the program's, -1 without.
    """

    pid: int
    pidfd: int
    gate: socket.socket
    cgroup: str
    loop: str
    notes: list[str]
    children: tuple[int, ...] = ()
    terminal: int = -1


def checked(spec: Spec) -> Spec:
    """The spec if this runtime can keep its promises with it; raises SpecFault with what is missing or contradicts itself."""
    path = spec.linux.cgroups_path
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise SpecFault(
            f"linux.cgroupsPath is {path!r}.", "Give a relative path without dots, like top/team/app/instance."
        )
    if not spec.process.args:
        raise SpecFault("process.args is empty.", "Name the program to run.")
    nsplan.check(spec)
    if spec.linux.net_devices:
        _netdevices().check(spec.linux)
    sysctl.check(spec)
    if (spec.hostname or spec.domainname) and spec.linux.namespace("uts") is None:
        raise SpecFault("A host name is set, and the UTS namespace is the host's.", 'Add {"type": "uts"}.')
    scheduling.check(spec.process, spec.linux.personality)
    labels.check(spec)
    return spec


def isolated(spec: Spec) -> Spec:
    """A checked spec that shares nothing with the host, nor its accounts, but maybe its network; raises SpecFault for any other."""
    linux = spec.linux
    if not linux.cgroups_path:
        raise SpecFault("linux.cgroupsPath is empty.", "Give a path like top/team/app/instance.")
    missing = [kind for kind in (*nsplan.CLONED, "cgroup") if not (found := linux.namespace(kind)) or found.path]
    if missing or not linux.uid_mappings or not linux.gid_mappings:
        raise SpecFault(
            f"The namespaces {', '.join(missing) or 'user'} or their id maps are missing.", "Containers have all."
        )
    if linux.net_devices:
        raise SpecFault("linux.netDevices would take interfaces of the host's.", "Connect the container to a network.")
    low = min(ids.host_id for ids in (*linux.uid_mappings, *linux.gid_mappings))
    if low < HOST_IDS:
        raise SpecFault(f"An id map begins at {low}: below {HOST_IDS} are the host's own accounts.", "Map higher ids.")
    return checked(spec)


def create(  # noqa: PLR0913  one call makes a container
    bundle: Path,
    streams: Streams,
    control: socket.socket | None,
    *,
    complete: int = -1,
    parked: Crew | None = None,
    go: bool = False,
    record: Callable[[Created], None] = lambda created: None,
    made: Callable[[Created], None] = lambda created: None,
    standalone: Standalone | None = None,
) -> Created:
    """Make the container of a bundle up to its gate; raises StartFailed with everything undone. With `go` the gate opens.

    A `parked` crew that fits makes it, else one that is gathered now. `control` closing gives up. `complete` is a pipe that
    tells when there is more in the bundle than its configuration, -1 when there is. `record` is called as soon as all of
    `Created` is known, `made` when the gate is reached; what both raise undoes everything. What shares more with the host than
    its network is refused, unless `standalone`.
    """
    # In this order: interfaces are given back while their networks live, and processes are gone before groups are removed.
    with ExitStack() as lent, ExitStack() as groups, ExitStack() as acquired:
        crew = parked
        if crew:
            acquired.callback(crew.dismiss)
            if crew.waits():
                crew.order(bundle, streams, complete)
            else:
                crew = None
        spec = Spec.read(bundle / CONFIG)
        spec = checked(spec) if standalone else isolated(spec)
        with step("2 network"):
            fits = crew is not None and crew.fits(spec)
        if crew is None or not fits:
            acquired.close()
            lender = _lender(spec, lent)
            crew = gather(spec, own_child=standalone is not None)
            acquired.callback(crew.dismiss)
            crew.order(bundle, streams, complete, standalone)
            _lend(lender, crew, acquired)
        with step("2 cgroup"):
            cgroups, path = detect(), spec.linux.cgroups_path
            resources = limits.resources_of(spec.linux.resources, cgroups.version)
            if standalone:
                _refuse_foreign(cgroups, path)
            groups.callback(remove_group, cgroups, path)
            _make_group(cgroups, path, resources)
        with step("2 network"):
            _set_network_parameters(spec, crew)
        with step("2 clone"):
            notes = program.limit(crew.init, spec.process)
            if spec.process.oom_score_adj is not None:
                Path(f"/proc/{crew.init}/oom_score_adj").write_text(str(spec.process.oom_score_adj))
            crew.admit(path)
            pid, pidfd = crew.admitted(control)
            if pid != crew.init:
                acquired.callback(end, pidfd)
        loop = crew.helped()
        with step("3 limits"):
            if loop:
                cgroups.set_limits(path, Resources(io=limits.of_loop(spec.linux.resources.block_io, loop)))
        children = () if pid == crew.init else (crew.init,)
        created = Created(pid, pidfd, crew.gate, path, loop, notes, children)
        holder = TerminalHolder()
        attendant = standalone.attendant if standalone else holder
        _recorded(lambda: record(created), lambda: await_ready(crew.gate, control, attendant))
        if go:
            handshake.try_send(crew.gate, handshake.Go())
        made(replace(created, terminal=holder.fd) if holder.fd >= 0 else created)
        acquired.pop_all()
        groups.pop_all()
    crew.release_helper()
    return created


def _lender(spec: Spec, lent: ExitStack) -> Lender | None:
    """Of interfaces, where some are asked for: from this network, before another is joined."""
    with step("2 network"):
        return lent.enter_context(_netdevices().Lender(spec.linux.net_devices)) if spec.linux.net_devices else None


def _lend(lender: Lender | None, crew: Crew, undo: ExitStack) -> None:
    if lender:
        with step("2 network"):
            lender.lend(Path(f"/proc/{crew.init}/ns/net"), undo)


def _recorded(record: Callable[[], None], ready: Callable[[], None]) -> None:
    """Write down whose container it is, then wait for it; an init that has failed already says why."""
    try:
        record()
    except ProcessLookupError:
        ready()
        raise
    ready()


def _netdevices() -> ModuleType:
    """Loaded when it is wanted: it takes netlink along."""
    return importlib.import_module("runtime.oci.netdevices")


def _refuse_foreign(cgroups: Cgroups, path: str) -> None:
    """A group that somebody else's processes are in would be emptied with the container."""
    if path and (there := cgroups.pids(path)):
        raise SpecFault(f"The group {path} holds {len(there)} processes already.", "Choose another linux.cgroupsPath.")


def _make_group(cgroups: Cgroups, path: str, resources: Resources) -> None:
    """Also for a group that is there; "" stands for none, the container stays where its maker is."""
    if path:
        cgroups.create(path, resources)


def _set_network_parameters(spec: Spec, crew: Crew) -> None:
    """In a network that this process is in too; one of the container's own is the init's."""
    for name, value in spec.linux.sysctl.items():
        if sysctl.of_network(name) and "network" not in crew.plan.made:
            sysctl.write(name, value)


def undo(created: Created) -> None:
    """Take a container away that was made and never started."""
    created.gate.close()
    end(created.pidfd)
    remove_group(detect(), created.cgroup)


def remove_group(cgroups: Cgroups, path: str) -> None:
    """End what is in a group and remove it; "" is none."""
    if path:
        cgroups.kill(path)
        cgroups.remove(path)
