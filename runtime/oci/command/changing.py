"""Update: a living container's limits."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.kernel.cgroups import detect
from runtime.oci import limits
from runtime.oci.command.log import Log
from runtime.oci.command.store import CommandFault, Store
from runtime.oci.fields import decode
from runtime.oci.spec_resources import LinuxResources
from runtime.oci.state import CONFIG

# Options by their place in the JSON of "resources".
_PLACES = {
    "blkio_weight": ("blockIO", "weight"), "cpu_period": ("cpu", "period"), "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"), "cpu_share": ("cpu", "shares"), "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"), "cpu_idle": ("cpu", "idle"), "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"), "memory": ("memory", "limit"), "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"), "pids_limit": ("pids", "limit"),
}  # fmt: skip


def update(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`update`: from a file or from options; what is not named stays."""
    container = store.get(options.id)
    state, status = container.state(), container.status()
    if state is None or status not in ("created", "running", "paused") or not state.cgroup:
        raise CommandFault(f"The container {container.id} is {status} and has no limits to change.")
    wanted = decode(LinuxResources, _asked(options), "resources")
    cgroups = detect()
    cgroups.set_limits(state.cgroup, replace(limits.resources_of(wanted, cgroups.version), oom_group=False))
    spec = container.spec()
    kept = {
        name: getattr(wanted, name) or getattr(spec.linux.resources, name)
        for name in ("memory", "cpu", "pids", "block_io", "hugepage_limits", "network")
    }
    resources = replace(spec.linux.resources, **kept)
    replace(spec, linux=replace(spec.linux, resources=resources)).write(container.folder / CONFIG)
    return 0


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    if options.resources:
        text = sys.stdin.read() if options.resources == "-" else Path(options.resources).read_text()
        try:
            found = json.loads(text)
        except ValueError as error:
            raise CommandFault(f"The resources are no JSON: {error}.") from error
        return found if isinstance(found, dict) else {}
    asked: dict[str, dict[str, Any]] = {}
    for option, (group, key) in _PLACES.items():
        value = getattr(options, option)
        if value not in (None, ""):
            asked.setdefault(group, {})[key] = value
    if not asked:
        raise CommandFault("Nothing is to be changed.", "Name a limit, or --resources FILE.")
    return asked
