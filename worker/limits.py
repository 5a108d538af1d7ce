"""A plan's limits in the words of the Docker Engine API, and the figures people read. Pure."""

from __future__ import annotations

from typing import Any

from worker.protocol import Limits

SHARES_PER_WEIGHT = 1024 / 100  # cgroup v1 shares of the v2 weight 100, both the kernel's default


def cpu_shares(weight: int) -> int:
    """`CpuShares` (2 to 262144) of a v2 weight (1 to 10000); 0, "no wish", stays 0."""
    return max(2, min(262_144, round(weight * SHARES_PER_WEIGHT))) if weight else 0


def resources(limits: Limits) -> dict[str, Any]:
    """The part of HostConfig that may change on a running container: the body of `POST /containers/{id}/update`.

    Docker's names where Docker has them, and the engine's own for disk, network and log. 0 lifts a limit. `MemorySwap`
    counts memory and swap together, as Docker does; without a memory limit there is none on swap.
    """
    return {
        "NanoCpus": limits.cpu_millicores * 1_000_000,
        "CpuShares": cpu_shares(limits.cpu_weight),
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes + limits.swap_bytes if limits.memory_bytes else 0,
        "PidsLimit": limits.pids,
        "DiskReadBps": limits.disk_read_bps,
        "DiskWriteBps": limits.disk_write_bps,
        "DiskReadIOps": limits.disk_read_iops,
        "DiskWriteIOps": limits.disk_write_iops,
        "DiskSize": limits.disk_bytes,
        "RateIn": limits.net_in_bps,
        "RateOut": limits.net_out_bps,
        "LogRate": limits.log_bytes_per_s,
        "LogSize": limits.log_bytes,
    }


def storage_options(limits: Limits) -> dict[str, str]:
    """`HostConfig.StorageOpt`: the size of the writable layer in bytes."""
    return {"size": str(limits.disk_bytes)} if limits.disk_bytes else {}


def endpoint_options(limits: Limits) -> dict[str, str]:
    """`DriverOpts` of the endpoint: network rates in bit/s."""
    found = {"moorage.rate.in": limits.net_in_bps, "moorage.rate.out": limits.net_out_bps}
    return {key: str(value) for key, value in found.items() if value}


def log_options(limits: Limits) -> dict[str, str]:
    """`LogConfig.Config`: bytes kept and bytes per second."""
    found = {"max-size": limits.log_bytes, "rate": limits.log_bytes_per_s}
    return {key: str(value) for key, value in found.items() if value}


def human_bytes(count: float) -> str:
    """`512 MB`, `1.5 GB`: powers of 1024, at most one decimal, none when it is whole."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if abs(count) < 1024:
            return f"{count:.4g} {unit}" if unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.4g} TB"
