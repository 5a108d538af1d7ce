"""The specification's resources as limits of a control group."""

from __future__ import annotations

from dataclasses import replace

from runtime.kernel.cgroups import UNLIMITED, DeviceRate, DeviceRule, Resources
from runtime.kernel.loop import LOOP_MAJOR
from runtime.oci import limitfiles
from runtime.oci.fields import SpecFault
from runtime.oci.spec_resources import NO_DEVICE, BlockIO, DeviceRuleSpec, LinuxResources

DEFAULT_SHARES = 1024
ANY = -1  # as a device's number
_KINDS = ("a", "b", "c")
_MAX_NUMBER = 2**31 - 1  # the kernel's own are below 2**20


def resources_of(spec: LinuxResources, version: int = 0) -> Resources:
    """What the spec asks for. A swap limit below the memory limit means no swap.

    With the host's `version` what the engine's containers never have is in it too, as files (limitfiles.py).
    """
    memory, cpu = spec.memory, spec.cpu
    found = Resources(
        devices=tuple(_rule(device) for device in spec.devices),
        io=tuple(r for r in _rates(spec.block_io) if (r.major, r.minor) != NO_DEVICE),
        pids=None if spec.pids is None else (spec.pids.limit if spec.pids.limit > 0 else UNLIMITED),
        oom_group=True,
        files=limitfiles.of(spec, version) if version else (),
    )
    if memory and memory.limit:
        swap = None if memory.swap is None else UNLIMITED if memory.swap < 0 else max(0, memory.swap - memory.limit)
        found = replace(found, memory_bytes=memory.limit, swap_bytes=swap)
    if memory and memory.reservation:
        found = replace(found, memory_low_bytes=memory.reservation)
    if cpu and cpu.quota:
        period = cpu.period or 100_000
        found = replace(found, cpu_quota_us=cpu.quota, cpu_period_us=period)
    if cpu and cpu.shares:
        found = replace(found, cpu_weight=max(1, cpu.shares * 100 // DEFAULT_SHARES))
    if cpu and (cpu.cpus or cpu.mems):
        found = replace(found, cpuset_cpus=cpu.cpus, cpuset_mems=cpu.mems)
    return found


def _rule(d: DeviceRuleSpec) -> DeviceRule:
    if d.type not in _KINDS or not d.access or set(d.access) - set("rwm"):
        raise SpecFault(
            f"linux.resources.devices has type {d.type[:40]!r} and access {d.access[:40]!r}.",
            f"Types are {', '.join(_KINDS)}; access is some of rwm.",
        )
    major, minor = (None if number == ANY else number for number in (d.major, d.minor))
    if not all(0 <= number <= _MAX_NUMBER for number in (major or 0, minor or 0)):
        raise SpecFault(f"linux.resources.devices has {major}:{minor}.", "Give numbers of a device, -1 for any.")
    return DeviceRule(allow=d.allow, kind=d.type, major=major, minor=minor, access=d.access)


def _rates(io: BlockIO | None) -> tuple[DeviceRate, ...]:
    rates: dict[tuple[int, int], DeviceRate] = {}
    if io is None:
        return ()
    for name, devices in (
        ("read_bps", io.throttle_read_bps_device),
        ("write_bps", io.throttle_write_bps_device),
        ("read_iops", io.throttle_read_iops_device),
        ("write_iops", io.throttle_write_iops_device),
    ):
        for device in devices:
            key = (device.major, device.minor)
            rates[key] = replace(rates.get(key, DeviceRate(major=key[0], minor=key[1])), **{name: device.rate})
    return tuple(rates.values())


def of_loop(io: BlockIO | None, loop: str) -> tuple[DeviceRate, ...]:
    """The same rates for the writable layer's loop device ("loop3"), which is a block device of its own."""
    rates = _rates(io)
    if not loop or not rates:
        return ()
    return (replace(rates[0], major=LOOP_MAJOR, minor=int(loop.removeprefix("loop"))),)
