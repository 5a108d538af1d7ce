"""The limits of one container as the engine keeps them, from and to Docker's resource names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.engine.errors import Invalid
from runtime.engine.fields import Fields

MIN_MEMORY = 6 << 20
CPU_PERIOD_US = 100_000
MAX_CORES = 1024  # a plan may be larger than this host: the limit then just never binds


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Kernel limits; 0 means none of that kind. Bytes, bytes per second, operations per second, bits per second (net)."""

    memory: int = 0
    memory_swap: int = 0  # memory and swap together, as Docker counts; -1 unlimited swap
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    blkio_weight: int = 0
    disk_read_bps: int = 0
    disk_write_bps: int = 0
    disk_read_iops: int = 0
    disk_write_iops: int = 0
    disk_size: int = 0
    rate_in: int = 0
    rate_out: int = 0
    log_rate: int = 0
    log_size: int = 0

    @property
    def has_disk_rates(self) -> bool:
        """Whether reading or writing is limited, in bytes or in operations."""
        return any((self.disk_read_bps, self.disk_write_bps, self.disk_read_iops, self.disk_write_iops))

    @property
    def millicores(self) -> int:
        """The CPU limit in thousandths of a core; 0 without one."""
        quota = self.quota_us
        return quota * 1000 // (self.cpu_period_us or CPU_PERIOD_US) if quota else 0

    @property
    def quota_us(self) -> int:
        """CPU time a period in microseconds; 0 without a limit."""
        if self.nano_cpus:
            return self.nano_cpus * (self.cpu_period_us or CPU_PERIOD_US) // 1_000_000_000
        return max(0, self.cpu_quota_us)


def parse_resources(body: Mapping[str, Any], base: Resources | None = None) -> Resources:
    """Docker's resource names (and Moorage's: DiskSize, DiskReadBps, RateIn, LogRate …) laid over `base`.

    Only names present change; raises Invalid for a wrong type or a figure that cannot work."""
    base = base or Resources()
    f = Fields(body, "HostConfig")
    size = 1 << 60
    found: dict[str, Any] = {}
    for name, key, low, high in (
        ("memory", "Memory", 0, size),
        ("memory_swap", "MemorySwap", -1, size),
        ("memory_reservation", "MemoryReservation", 0, size),
        ("nano_cpus", "NanoCpus", 0, 10**15),
        ("cpu_quota_us", "CpuQuota", -1, 10**12),
        ("cpu_period_us", "CpuPeriod", 0, 1_000_000),
        ("cpu_shares", "CpuShares", 0, 262_144),
        ("pids", "PidsLimit", -1, 4 << 20),
        ("blkio_weight", "BlkioWeight", 0, 1000),
        ("disk_read_bps", "DiskReadBps", 0, size),
        ("disk_write_bps", "DiskWriteBps", 0, size),
        ("disk_read_iops", "DiskReadIOps", 0, size),
        ("disk_write_iops", "DiskWriteIOps", 0, size),
        ("disk_size", "DiskSize", 0, size),
        ("rate_in", "RateIn", 0, size),
        ("rate_out", "RateOut", 0, size),
        ("log_rate", "LogRate", 0, size),
        ("log_size", "LogSize", 0, size),
    ):
        if body.get(key) is not None:
            found[name] = f.integer(key, low=low, high=high)
    for name, key in (("cpuset_cpus", "CpusetCpus"), ("cpuset_mems", "CpusetMems")):
        if body.get(key):
            found[name] = _cpuset(f.text(key, limit=256), key)
    for name, key in (
        ("disk_read_bps", "BlkioDeviceReadBps"),
        ("disk_write_bps", "BlkioDeviceWriteBps"),
        ("disk_read_iops", "BlkioDeviceReadIOps"),
        ("disk_write_iops", "BlkioDeviceWriteIOps"),
    ):
        if body.get(key):
            found[name] = _device_rate(f, key)
    return checked(dataclasses.replace(base, **_settle_cpu(found)))


def _settle_cpu(found: dict[str, Any]) -> dict[str, Any]:
    """NanoCpus and CpuQuota name the same limit: whichever is given non-zero clears the other."""
    if found.get("nano_cpus") and found.get("cpu_quota_us", 0) > 0:
        raise Invalid("NanoCpus and CpuQuota are both set.", "Give one of them.")
    if found.get("nano_cpus"):
        found["cpu_quota_us"] = 0
    elif found.get("cpu_quota_us"):
        found["nano_cpus"] = 0
    if found.get("pids", 0) < 0:
        found["pids"] = 0
    return found


def checked(r: Resources) -> Resources:
    """Refuse combinations the kernel would refuse, in the words of the request."""
    if r.memory and r.memory < MIN_MEMORY:
        raise Invalid(f"Minimum memory limit allowed is 6MB, not {r.memory} bytes.")
    if r.memory_swap > 0 and not r.memory:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit.")
    if 0 < r.memory_swap < r.memory:
        raise Invalid(
            f"Minimum memoryswap limit ({r.memory_swap} bytes) should be larger than memory limit ({r.memory})."
        )
    if r.millicores > MAX_CORES * 1000 or (r.nano_cpus and r.nano_cpus < 10_000_000):
        raise Invalid(f"Range of CPUs is from 0.01 to {MAX_CORES}; asked {r.millicores / 1000:g}.")
    if r.cpu_period_us and r.cpu_period_us < 1000:
        raise Invalid(f"CPU cfs period can not be less than 1ms, not {r.cpu_period_us} us.")
    if 0 < r.cpu_quota_us < 1000:
        raise Invalid(f"CPU cfs quota can not be less than 1ms, not {r.cpu_quota_us} us.")
    if r.cpu_shares == 1:
        raise Invalid("CpuShares is 1; the kernel takes 2 to 262144.")
    return r


def _cpuset(text: str, key: str) -> str:
    if not text or any(c not in "0123456789,-" for c in text):
        raise Invalid(f"{key} {text!r} is not a list like 0-1,3.")
    return text


def _device_rate(f: Fields, key: str) -> int:
    """The rate of Docker's `[{"Path": …, "Rate": n}]`. The engine throttles the devices its store lies on: the least counts."""
    rates = []
    for item in f.objects(key, limit=16):
        rates.append(item.integer("Rate", low=0, high=1 << 60))
    return min(rates, default=0)


def to_docker(r: Resources) -> dict[str, Any]:
    """The resource part of HostConfig as `inspect` prints it, with Moorage's names added."""
    return {
        "CpuShares": r.cpu_shares,
        "Memory": r.memory,
        "NanoCpus": r.nano_cpus,
        "BlkioWeight": r.blkio_weight,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": None,
        "BlkioDeviceWriteBps": None,
        "BlkioDeviceReadIOps": None,
        "BlkioDeviceWriteIOps": None,
        "CpuPeriod": r.cpu_period_us,
        "CpuQuota": r.cpu_quota_us,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": r.cpuset_cpus,
        "CpusetMems": r.cpuset_mems,
        "MemoryReservation": r.memory_reservation,
        "MemorySwap": r.memory_swap,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": r.pids or None,
        "DiskReadBps": r.disk_read_bps,
        "DiskWriteBps": r.disk_write_bps,
        "DiskReadIOps": r.disk_read_iops,
        "DiskWriteIOps": r.disk_write_iops,
        "DiskSize": r.disk_size,
        "RateIn": r.rate_in,
        "RateOut": r.rate_out,
        "LogRate": r.log_rate,
        "LogSize": r.log_size,
    }
