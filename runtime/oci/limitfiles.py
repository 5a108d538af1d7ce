"""Limits that only the command line's containers have, as files of control groups (config-linux.md, "resources").

What this host's version has no file for is refused by name; what it has but this kernel lacks is refused when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.oci.fields import SpecFault
from runtime.oci.spec_resources import BlockIO, Cpu, LinuxResources, Memory, WeightDevice

type File = tuple[str, str]


def of(r: LinuxResources, version: int) -> tuple[File, ...]:
    """Names and contents, in the order to write them; raises SpecFault."""
    found = _v1(r) if version == 1 else _v2(r)
    return (
        *found,
        *(("rdma.max", f"{device} {_rdma(limit.hca_handles, limit.hca_objects)}") for device, limit in r.rdma.items()),
    )


def _rdma(handles: int | None, objects: int | None) -> str:
    pairs = (("hca_handle", handles), ("hca_object", objects))
    return " ".join(f"{name}={value}" for name, value in pairs if value is not None)


def _v1(r: LinuxResources) -> Iterator[File]:
    if r.unified:
        raise SpecFault("linux.resources.unified names files of cgroup v2, and this host has v1.", "Leave it out.")
    if r.memory:
        yield from _v1_memory(r.memory)
    if r.cpu:
        yield from _numbers(
            ("cpu.cfs_burst_us", r.cpu.burst),
            ("cpu.rt_period_us", r.cpu.realtime_period),
            ("cpu.rt_runtime_us", r.cpu.realtime_runtime),
            ("cpu.idle", r.cpu.idle),
        )
    if r.block_io:
        yield from _numbers(("blkio.bfq.weight", r.block_io.weight))
        yield from _devices("blkio.bfq.weight_device", r.block_io)
    for page in r.hugepage_limits:
        yield f"hugetlb.{page.page_size}.limit_in_bytes", str(page.limit)
    if r.network:
        yield from _numbers(("net_cls.classid", r.network.class_id))
        for interface in r.network.priorities:
            yield "net_prio.ifpriomap", f"{interface.name} {interface.priority}"


def _v1_memory(memory: Memory) -> Iterator[File]:
    yield from _numbers(("memory.swappiness", memory.swappiness))
    if memory.disable_oom_killer:
        yield "memory.oom_control", "1"


def _v2(r: LinuxResources) -> Iterator[File]:
    _refuse_v1_only(r)
    if r.cpu:
        yield from _numbers(("cpu.max.burst", r.cpu.burst), ("cpu.idle", r.cpu.idle))
    if r.block_io:
        yield from _numbers(("io.bfq.weight", r.block_io.weight))
        yield from _devices("io.bfq.weight", r.block_io)
    for page in r.hugepage_limits:
        yield f"hugetlb.{page.page_size}.max", str(page.limit)
    for name, value in r.unified.items():
        if "/" in name or name.startswith("cgroup."):
            raise SpecFault(f"linux.resources.unified has {name!r}.", "Name a controller's file, like memory.high.")
        yield name, value


def _refuse_v1_only(r: LinuxResources) -> None:
    """Of v1 alone: marks of packets, swappiness, an oom killer that can be switched off, real-time shares."""
    memory, cpu = r.memory or Memory(), r.cpu or Cpu()
    given = {
        "network.classID": r.network and r.network.class_id,
        "network.priorities": r.network and r.network.priorities,
        "memory.swappiness": memory.swappiness,
        "memory.disableOOMKiller": memory.disable_oom_killer,
        "cpu.realtimeRuntime": cpu.realtime_runtime,
        "cpu.realtimePeriod": cpu.realtime_period,
    }
    for name, value in given.items():
        if value:
            raise SpecFault(f"linux.resources.{name} is of cgroup v1, and this host has v2.", "Leave it out.")


def _numbers(*files: tuple[str, int | None]) -> Iterator[File]:
    return ((name, str(value)) for name, value in files if value is not None)


def _devices(name: str, io: BlockIO) -> Iterator[File]:
    if io.leaf_weight is not None or any(device.leaf_weight is not None for device in io.weight_device):
        raise SpecFault("linux.resources.blockIO.leafWeight is gone from kernels.", "Leave it out.")
    return ((name, _weight(device)) for device in io.weight_device if device.weight is not None)


def _weight(device: WeightDevice) -> str:
    return f"{device.major}:{device.minor} {device.weight}"
