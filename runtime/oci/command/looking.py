"""Commands that only look: state, list, ps, events, spec, features."""

from __future__ import annotations

import argparse
import json
import re
import select
import subprocess
from pathlib import Path
from typing import Any

from runtime.kernel import capabilities, namespaces
from runtime.kernel.cgroups import detect
from runtime.oci import default, labels, mountoptions, nsplan, seccomp_profile
from runtime.oci.command.log import Log
from runtime.oci.command.store import OCI_VERSION, CommandFault, Container, Store, dumps
from runtime.oci.default import Options
from runtime.oci.state import CONFIG

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def state(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`state`."""
    print(dumps(store.get(options.id).to_json()))
    return 0


def listing(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`list`."""
    if options.quiet:
        print("\n".join(container.id for container in store.all()))
        return 0
    found = [container.to_json() for container in store.all()]
    if options.format == "json":
        print(json.dumps(found))
        return 0
    rows = [_COLUMNS, *(tuple(str(item.get(name.lower(), "")) for name in _COLUMNS) for item in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        print("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    return 0


def processes(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`ps`: pids as JSON, or the lines of ps(1) that are the container's."""
    container = store.get(options.id)
    pids = _pids(container)
    if options.format == "json":
        print(json.dumps(pids))
        return 0
    words = [word for word in options.options if word != "--"] or ["-ef"]
    done = subprocess.run(["ps", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFault(f"ps {' '.join(words)} failed: {done.stderr.strip()}")
    head, *lines = done.stdout.splitlines()
    column = next((i for i, word in enumerate(head.split()) if word == "PID"), None)
    if column is None:
        raise CommandFault(f"ps {' '.join(words)} prints no column PID.", "Ask for one.")
    print(head)
    for line in lines:
        if int(line.split()[column]) in pids:
            print(line)
    return 0


def _pids(container: Container) -> list[int]:
    found = container.state()
    if found is None:
        return []
    return sorted(set(detect().pids(found.cgroup))) if found.cgroup else [found.init.pid]


def events(store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`events`: a line of counters every few seconds until the container ends, or once."""
    container = store.get(options.id)
    interval_s = _seconds(options.interval)
    found = container.state()
    pidfd = found.init.open() if found else None
    if found is None or pidfd is None:
        raise CommandFault(f"The container {container.id} is {container.status()}, not running.")
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    while True:
        print(json.dumps({"type": "stats", "id": container.id, "data": _stats(found.cgroup)}), flush=True)
        if options.stats or ended.poll(interval_s * 1000):
            return 0


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not match or not float(match[1]):
        raise CommandFault(f"--interval is {text!r}.", "Give a time like 5s.")
    return float(match[1]) * _UNITS[match[2]]


def _stats(group: str) -> dict[str, Any]:
    """In the shape of runc's events, as far as it is known."""
    sample = detect().sample(group)
    return {
        "cpu": {
            "usage": {"total": sample.cpu_ns},
            "throttling": {
                "periods": sample.periods,
                "throttledPeriods": sample.throttled_periods,
                "throttledTime": sample.throttled_ns,
            },
        },
        "memory": {
            "cache": sample.cache_bytes,
            "usage": {"limit": sample.memory_limit_bytes, "usage": sample.memory_bytes},
        },
        "pids": {"current": sample.pids, "limit": sample.pids_limit},
        "blkio": {"readBytes": sample.read_bytes, "writeBytes": sample.write_bytes},
    }


def example(_store: Store, options: argparse.Namespace, _log: Log) -> int:
    """`spec`: an example to start from."""
    path = options.bundle / CONFIG
    if path.exists():
        raise CommandFault(f"{path} exists.", "Remove it first.")
    spec = default.default(
        Options(args=("sh",), hostname="moorage", cgroups_path="", id_base=default.ID_RANGE, env=("TERM=xterm",))
    )
    written = spec.to_json()
    written["process"]["terminal"] = True
    written["root"]["readonly"] = True
    written["process"]["user"] = {"uid": 0, "gid": 0}
    linux = written["linux"]
    if not options.rootless:
        linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "user"]
        del linux["uidMappings"], linux["gidMappings"]
    linux.pop("sysctl", None)
    linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    path.write_text(dumps(written))
    return 0


def features(_store: Store, _options: argparse.Namespace, _log: Log) -> int:
    """`features` (features.md of the specification)."""
    cgroups = detect()
    print(
        dumps(
            {
                "ociVersionMin": "1.0.0",
                "ociVersionMax": OCI_VERSION,
                "hooks": list(HOOKS),
                "mountOptions": sorted(mountoptions.WORDS),
                "linux": {
                    "namespaces": sorted(
                        kind
                        for kind in nsplan.KINDS
                        if Path(f"/proc/self/ns/{namespaces.FILES.get(kind, kind)}").exists()
                    ),
                    "capabilities": [f"CAP_{name}" for name in capabilities.NAMES],
                    "cgroup": {
                        "v1": True,
                        "v2": True,
                        "systemd": False,
                        "systemdUser": False,
                        "rdma": False,
                        "inUse": cgroups.version,
                    },
                    "seccomp": {
                        "enabled": True,
                        "actions": sorted((*seccomp_profile.ACTIONS, "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")),
                        "operators": sorted(seccomp_profile.OPERATORS),
                        "archs": sorted(seccomp_profile.ARCHES),
                        "knownFlags": sorted(seccomp_profile.FLAGS),
                        "supportedFlags": sorted(seccomp_profile.FLAGS),
                    },
                    "apparmor": {"enabled": labels.has_apparmor()},
                    "selinux": {"enabled": labels.has_selinux()},
                    "intelRdt": {"enabled": False},
                    "mountExtensions": {"idmap": {"enabled": True}},
                    "netDevices": {"enabled": True},
                },
                "annotations": {},
                "potentiallyUnsafeConfigAnnotations": [],
            }
        )
    )
    return 0
