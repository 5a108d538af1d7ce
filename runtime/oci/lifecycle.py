"""Making one container up to its start gate: the steps 2 and 3, in a short-lived maker (maker.py). Numbers as in init.py.

Whatever was acquired is undone in reverse when a step fails or the far end gives up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runtime.kernel.cgroups import Cgroups, Resources, detect
from runtime.oci import handshake, limits, program
from runtime.oci.crew import CLONED, Crew, await_ready, end, gather, step
from runtime.oci.fields import SpecFault
from runtime.oci.program import Streams
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG


@dataclass(frozen=True, slots=True)
class Created:
    """An init that waits at its gate. `gate` is the socket to it; its closing without a message means that execve succeeded.

    `children` are further children of the monitor's, which have ended.
    """

    pid: int
    pidfd: int
    gate: socket.socket
    cgroup: str
    loop: str
    notes: list[str]
    children: tuple[int, ...] = ()


def checked(spec: Spec) -> Spec:
    """The spec if this runtime can keep its promises with it; raises SpecFault with what is missing or dangerous."""
    path, linux = spec.linux.cgroups_path, spec.linux
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise SpecFault(
            f"linux.cgroupsPath is {path!r}.", "Give a relative path without dots, like top/team/app/instance."
        )
    missing = [kind for kind in CLONED if linux.namespace(kind) is None]
    if missing or not linux.uid_mappings or not linux.gid_mappings:
        raise SpecFault(
            f"The namespaces {', '.join(missing) or 'user'} or their id maps are missing.", "Containers have all."
        )
    for name in linux.sysctl:
        if "/" in name or (name.startswith("net.") and linux.namespace("network") is None):
            raise SpecFault(f"The sysctl {name} would reach the host.", "Leave it out.")
    return spec


def create(
    bundle: Path,
    streams: Streams,
    control: socket.socket | None,
    *,
    complete: int = -1,
    parked: Crew | None = None,
    go: bool = False,
    record: Callable[[Created], None] = lambda created: None,
    made: Callable[[Created], None] = lambda created: None,
) -> Created:
    """Make the container of a bundle up to its gate; raises StartFailed with everything undone. With `go` the gate opens.

    A `parked` crew that fits makes it, else one that is gathered now. `control` closing gives up. `complete` is a pipe that
    tells when there is more in the bundle than its configuration, -1 when there is. `record` is called as soon as all of
    `Created` is known, `made` when the gate is reached; what both raise undoes everything.
    """
    with ExitStack() as groups, ExitStack() as acquired:  # whose processes are gone before groups are removed
        crew = parked
        if crew:
            acquired.callback(crew.dismiss)
            if crew.waits():
                crew.order(bundle, streams, complete)
            else:
                crew = None
        spec = checked(Spec.read(bundle / CONFIG))
        with step("2 network"):
            fits = crew is not None and crew.fits(spec)
        if crew is None or not fits:
            acquired.close()
            crew = gather(spec)
            acquired.callback(crew.dismiss)
            crew.order(bundle, streams, complete)
        with step("2 cgroup"):
            cgroups, path = detect(), spec.linux.cgroups_path
            resources = limits.resources_of(spec.linux.resources)
            groups.callback(remove_group, cgroups, path)
            cgroups.create(path, resources)
        with step("2 network"):
            for name, value in spec.linux.sysctl.items():
                if name.startswith("net."):
                    Path("/proc/sys", name.replace(".", "/")).write_text(value)
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
            cgroups.set_limits(path, Resources(io=limits.of_loop(spec.linux.resources.block_io, loop)))
        children = () if pid == crew.init else (crew.init,)
        created = Created(pid, pidfd, crew.gate, path, loop, notes, children)
        record(created)
        await_ready(crew.gate, control)
        if go:
            handshake.try_send(crew.gate, handshake.Go())
        made(created)
        acquired.pop_all()
        groups.pop_all()
    crew.release_helper()
    return created


def undo(created: Created) -> None:
    """Take a container away that was made and never started."""
    created.gate.close()
    end(created.pidfd)
    remove_group(detect(), created.cgroup)


def remove_group(cgroups: Cgroups, path: str) -> None:
    cgroups.kill(path)
    cgroups.remove(path)
