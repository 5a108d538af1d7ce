"""Counters of containers: Docker's stats, and all containers in one pass for the agent."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.limits import Limits
from runtime.engine.units import ZERO_TIME, rfc3339
from runtime.kernel.cgroups import Marks, Moved, Sample
from runtime.network.model import Counters, Endpoint, Queue
from runtime.storage.driver import StorageFault, Usage

NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
FRESH_S = 1.0
NEAR_RATE = 0.8  # of what may be sent: from there on the queue inside is looked at


@dataclass(frozen=True, slots=True)
class Line:
    """An endpoint with a rate and its traffic; `outgoing` is the queue before what the container sends, where it was read."""

    endpoint: Endpoint
    traffic: Counters
    outgoing: Queue | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One container at one moment. `system_ns` is the host's CPU time, of all CPUs."""

    ns: int
    system_ns: int
    group: Sample
    network: Counters
    disk: Usage
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupReading:
    """The group of an app or a team at one moment; devices only where its disk rates are limited."""

    ns: int
    marks: Marks
    devices: Mapping[str, Moved] = field(default_factory=dict)


type Listener = Callable[[Mapping[str, Reading], Mapping[str, GroupReading]], None]


def system_cpu_ns(stat: Path = Path("/proc/stat")) -> int:
    """The host's CPU time in ns: user to steal of the first line of /proc/stat, as dockerd counts it."""
    with stat.open("rb") as file:
        fields = file.readline().split()[1:8]
    return sum(int(f) for f in fields) * NS_PER_TICK


def parents(group: str) -> list[str]:
    """`acme` and `acme/web` of `acme/web`: the team's group and the app's."""
    parts = group.split("/") if group else []
    return ["/".join(parts[: n + 1]) for n in range(len(parts))][:2]


def add(a: Counters, b: Counters) -> Counters:
    """The sum of two endpoints."""
    return Counters(a.rx_bytes + b.rx_bytes, a.tx_bytes + b.tx_bytes, a.drops + b.drops)


class Stats:
    """Reads cgroups, links and writable layers; a pass over all is shared by those who ask within a second."""

    def __init__(self, core: Core, limits: Limits) -> None:
        self._core = core
        self._limits = limits
        self._lock = asyncio.Lock()
        self._last: dict[str, Reading] = {}
        self._listeners: list[Listener] = []
        self._sent: dict[str, tuple[float, int]] = {}  # by endpoint: when, and bytes sent until then
        self.last_at = 0.0  # monotonic seconds

    def listen(self, listener: Listener) -> None:
        """Have every pass told, whoever asked for it."""
        self._listeners.append(listener)

    async def sample_all(self) -> dict[str, Reading]:
        """All running containers by id, at most FRESH_S old."""
        async with self._lock:
            if time.monotonic() - self.last_at >= FRESH_S:
                live = [c for c in self._core.registry if c.state.is_live and c.cgroup]
                lines = await self._lines(self._core.networks.sample_all())
                self._last, groups = await asyncio.to_thread(self._read_all, live, lines)
                self.last_at = time.monotonic()
                for listener in self._listeners:
                    listener(self._last, groups)
            return self._last

    async def _lines(self, traffic: Mapping[str, Counters]) -> dict[str, list[Line]]:
        """Every container's endpoints. The queue in its namespace is read only where it sends about as much as it may."""
        found: dict[str, list[Line]] = {}
        now, sent = time.monotonic(), {}
        for container in self._core.registry:
            for endpoint in self._core.networks.endpoints(container.id):
                counters = traffic.get(endpoint.id, Counters())
                outgoing = None
                if endpoint.rate_out_bps:
                    sent[endpoint.id] = (now, counters.tx_bytes)
                    then, before = self._sent.get(endpoint.id, (now, counters.tx_bytes))
                    if (counters.tx_bytes - before) * 8 > NEAR_RATE * endpoint.rate_out_bps * (now - then) > 0:
                        outgoing = await self._core.networks.outgoing(endpoint)
                found.setdefault(container.id, []).append(Line(endpoint, counters, outgoing))
        self._sent = sent
        return found

    def _read_all(
        self, live: list[Container], lines: Mapping[str, list[Line]]
    ) -> tuple[dict[str, Reading], dict[str, GroupReading]]:
        system = system_cpu_ns()
        found = {}
        for container in live:
            reading = self._read(container, lines.get(container.id, []), system)
            if reading:
                found[container.id] = reading
        return found, self._read_groups(live)

    def _read_groups(self, live: Iterable[Container]) -> dict[str, GroupReading]:
        """Groups of apps and teams that have limits and something that runs."""
        found = {}
        for path in {path for c in live for path in parents(c.record.host.cgroup_parent)}:
            allowed, group = self._limits.group(path), f"{self._core.cgroup_root}/{path}"
            if not (allowed.millicores or allowed.memory or allowed.pids or allowed.has_disk_rates):
                continue
            try:
                marks = self._core.cgroups.marks(group)
                devices = self._core.cgroups.devices(group) if allowed.has_disk_rates else {}
            except OSError:
                continue  # it went with its last container
            found[path] = GroupReading(time.time_ns(), marks, devices)
        return found

    def _read(self, container: Container, lines: list[Line], system_ns: int) -> Reading | None:
        try:
            group = self._core.cgroups.sample(container.cgroup)
        except OSError:
            return None  # it ended meanwhile
        try:
            disk = self._disk(container)
        except (OSError, StorageFault):
            disk = Usage(used_bytes=0, size_bytes=0)
        network = Counters()
        for line in lines:
            network = add(network, line.traffic)
        rated = tuple(line for line in lines if line.endpoint.rate_in_bps or line.endpoint.rate_out_bps)
        return Reading(time.time_ns(), system_ns, group, network, disk, rated)

    def _disk(self, container: Container) -> Usage:
        """What the writable layer holds: of a sized one that is mounted, what its own file system says, where it can."""
        size = container.record.host.resources.disk_size
        if size and container.init and self._core.driver.tells_free:
            free = os.statvfs(f"/proc/{container.init.pid}/root")
            return Usage(used_bytes=max(0, size - free.f_bavail * free.f_frsize), size_bytes=size)
        return self._core.driver.usage(container.id)

    async def sample(self, container: Container) -> Reading | None:
        """One container now; None when it does not run."""
        if not container.state.is_live:
            return None
        networks = self._core.networks
        lines = [Line(endpoint, networks.sample(endpoint)) for endpoint in networks.endpoints(container.id)]
        return await asyncio.to_thread(self._read, container, lines, system_cpu_ns())

    async def next(self, container: Container, before: Reading | None) -> tuple[dict[str, Any], Reading | None]:
        """Docker's JSON of now, with `before` as the sample it compares with."""
        now = await self.sample(container)
        return (docker_stats(container, now, before) if now else self.blank(container)), now

    async def body(self, container: Container, before: Reading | None) -> dict[str, Any]:
        """Docker's JSON of now."""
        return (await self.next(container, before))[0]

    @staticmethod
    def blank(container: Container) -> dict[str, Any]:
        """What Docker sends of a container that does not run."""
        return {
            "read": ZERO_TIME,
            "preread": ZERO_TIME,
            "pids_stats": {},
            "blkio_stats": dict.fromkeys(("io_service_bytes_recursive", "io_serviced_recursive")),
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": _cpu(None),
            "precpu_stats": _cpu(None),
            "memory_stats": {},
            "name": f"/{container.name}",
            "id": container.id,
        }


def docker_stats(container: Container, now: Reading, before: Reading | None) -> dict[str, Any]:
    """GET /containers/{id}/stats of one moment."""
    g, n = now.group, now.network
    limit = g.memory_limit_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    major_minor = {"major": 0, "minor": 0}
    networks = {
        "eth0": {
            "rx_bytes": n.rx_bytes,
            "rx_packets": 0,
            "rx_errors": 0,
            "rx_dropped": 0,
            "tx_bytes": n.tx_bytes,
            "tx_packets": 0,
            "tx_errors": 0,
            "tx_dropped": n.drops,
        }
    }
    return {
        "read": rfc3339(now.ns),
        "preread": rfc3339(before.ns) if before else ZERO_TIME,
        "pids_stats": {"current": g.pids, "limit": g.pids_limit or 2**64 - 1},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {**major_minor, "op": "read", "value": g.read_bytes},
                {**major_minor, "op": "write", "value": g.write_bytes},
            ],
            "io_serviced_recursive": [
                {**major_minor, "op": "read", "value": g.read_ops},
                {**major_minor, "op": "write", "value": g.write_ops},
            ],
        },
        "num_procs": 0,
        "storage_stats": {"used_bytes": now.disk.used_bytes, "size_bytes": now.disk.size_bytes},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": {
            "usage": g.memory_bytes,
            "limit": limit,
            "stats": {"cache": g.cache_bytes},
            "failcnt": g.oom_kills,
        },
        "name": f"/{container.name}",
        "id": container.id,
        "networks": networks,
    }


def _cpu(reading: Reading | None) -> dict[str, Any]:
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    usage = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
    if reading is None:
        return {"cpu_usage": usage, "throttling_data": throttling}
    g = reading.group
    return {
        "cpu_usage": {**usage, "total_usage": g.cpu_ns},
        "system_cpu_usage": reading.system_ns,
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": g.periods,
            "throttled_periods": g.throttled_periods,
            "throttled_time": g.throttled_ns,
        },
    }


def moorage_stats(container: Container, r: Reading) -> dict[str, Any]:
    """One entry of GET /moorage/stats, named as the worker's MetricSample."""
    g = r.group
    return {
        "id": container.id,
        "name": container.name,
        "labels": container.labels,
        "state": container.state.value,
        "at": r.ns / 1e9,
        "cpu_ns": g.cpu_ns,
        "throttled_ns": g.throttled_ns,
        "memory_bytes": g.memory_bytes,
        "memory_limit_bytes": g.memory_limit_bytes,
        "net_in_total": r.network.rx_bytes,
        "net_out_total": r.network.tx_bytes,
        "disk_read_total": g.read_bytes,
        "disk_write_total": g.write_bytes,
        "disk_used_bytes": r.disk.used_bytes,
        "disk_size_bytes": r.disk.size_bytes,
        "pids": g.pids,
        "cpu_limit_millicores": container.record.host.resources.millicores,
    }
