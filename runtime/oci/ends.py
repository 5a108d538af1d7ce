"""What is left of a container whose monitor was killed, and how it is taken away."""

from __future__ import annotations

import time
from pathlib import Path

from runtime.kernel.cgroups import detect
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG, ExitRecord, State


def reap_orphan(bundle: Path) -> ExitRecord:
    """End what lives of a container without its monitor, remove its cgroup, write `exit.json` with code -1, unknown.

    Harmless when all is gone; an exit record that is there is kept. Blocks for some milliseconds: call it in a thread.
    Mounts and the loop device go with the last process. Raises CgroupFault when processes survive.
    """
    state = State.read(bundle)
    group = state.cgroup if state else _group(bundle)
    if state:
        if state.monitor:
            state.monitor.kill()
        state.init.kill()
        Path(state.attach).unlink(missing_ok=True)
    if group:
        cgroups = detect()
        cgroups.kill(group)
        cgroups.remove(group)
    record = ExitRecord.read(bundle)
    if record is None:
        record = ExitRecord(
            code=-1,
            unknown=True,
            started_ns=state.started_ns if state else 0,
            finished_ns=time.time_ns(),
            reason="the container's monitor ended first, so nobody saw its exit code",
        )
        record.write(bundle)
    return record


def _group(bundle: Path) -> str:
    try:
        return Spec.read(bundle / CONFIG).linux.cgroups_path
    except (OSError, ValueError, SpecFault):
        return ""
