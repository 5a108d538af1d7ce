"""What the engine says of its host in /info and /version."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from runtime.engine import shortfalls
from runtime.engine.config import VERSION
from runtime.engine.core import Core
from runtime.engine.state import State
from runtime.engine.units import rfc3339
from runtime.storage.choose import filesystem_of

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class Host:
    """Facts that do not change while the engine runs."""

    kernel: str
    machine: str
    architecture: str
    python: str
    name: str
    system: str
    cpus: int
    memory_bytes: int


@cache
def host() -> Host:
    """The host, read once."""
    uname = os.uname()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        system = "Linux"
    version = ".".join(str(n) for n in sys.version_info[:3])
    machine = uname.machine
    return Host(
        uname.release,
        machine,
        ARCHITECTURES.get(machine, machine),
        version,
        uname.nodename,
        system,
        len(os.sched_getaffinity(0)),
        pages,
    )


def info(core: Core, images: int) -> dict[str, Any]:
    """GET /info, as far as the docker command line prints it; under `Moorage` what only this engine knows."""
    here = host()
    states = [c.state for c in core.registry]
    disk = os.statvfs(core.config.home)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    return {
        "ID": core.config.short,
        "Containers": len(states),
        "ContainersRunning": states.count(State.RUNNING),
        "ContainersPaused": states.count(State.PAUSED),
        "ContainersStopped": len(states) - states.count(State.RUNNING) - states.count(State.PAUSED),
        "Images": images,
        "Driver": core.driver.name,
        "DriverStatus": [
            ["Backing Filesystem", filesystem_of(core.config.home)],
            ["Chosen", core.storage.reason],
            *([f"Not {name}", why] for name, why in core.storage.passed_over.items()),
        ],
        "Plugins": {"Volume": [], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": ["moorage"]},
        "MemoryLimit": True,
        "SwapLimit": core.offers.swap,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": core.offers.cpuset,
        "PidsLimit": True,
        "IPv4Forwarding": forwarding,
        "BridgeNfIptables": True,
        "BridgeNfIp6tables": True,
        "OomKillDisable": False,
        "Debug": core.config.debug,
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "NGoroutines": 0,
        "SystemTime": rfc3339(time.time_ns()),
        "LoggingDriver": "moorage",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(core.cgroups.version),
        "NEventsListener": core.events.followers,
        "KernelVersion": here.kernel,
        "OperatingSystem": here.system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": here.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": None},
        "NCPU": here.cpus,
        "MemTotal": here.memory_bytes,
        "DockerRootDir": str(core.config.home),
        "Name": here.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": VERSION,
        "Runtimes": {"moorage": {"path": "moorage"}},
        "DefaultRuntime": "moorage",
        "Swarm": {
            "NodeID": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=cgroupns"],
        "Warnings": shortfalls.of_host(core.offers, core.device, core.cgroups.version) or None,
        "Moorage": {
            "Short": core.config.short,
            "Trusted": core.config.trusted,
            "SubnetPool": core.config.subnet_pool,
            "MaxDisk": core.config.max_disk,
            "DiskBytes": disk.f_blocks * disk.f_frsize,
            "DiskFreeBytes": disk.f_bavail * disk.f_frsize,
            "Started": rfc3339(core.started_ns),
            "Pid": os.getpid(),
        },
    }


def epoch(created: str) -> int:
    """Seconds since 1970 of an image's RFC 3339 time; 0 when it says none."""
    try:
        moment = datetime.fromisoformat(created[:19] + "+00:00") if created else None
    except ValueError:
        return 0
    return max(0, int(moment.timestamp())) if moment else 0


def rss_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
