"""Limits that were asked for and that this host cannot hold: said in warnings, in `inspect` and in `docker info`."""

from __future__ import annotations

from runtime.engine.bundle import StoreDevice
from runtime.engine.resources import Resources
from runtime.kernel.cgroups import Offers
from runtime.oci.spec_resources import NO_DEVICE

NO_SWAP = "The kernel has no limit on swap: memory is held at {} MB, swap beside it is not. Boot it with swapaccount=1."
NO_IO = "The kernel has no limits on disk I/O: the disk rates hold nowhere. Use one with the blkio or io controller."
NO_STORE_DEVICE = (
    "The state directory lies on no block device of its own, so the disk rates hold nowhere. "
    "Give the container a disk size, whose device is limited, or put the state directory on a disk."
)
NO_CPUSET = "The kernel has no cpuset controller: the list of CPUs holds nothing. Leave it out."


def of_container(r: Resources, offers: Offers, device: StoreDevice) -> list[str]:
    """One sentence for each limit of `r` that is not held."""
    found = []
    if r.memory and r.memory_swap >= 0 and not offers.swap:
        found.append(NO_SWAP.format(r.memory >> 20))
    if r.has_disk_rates and not offers.io:
        found.append(NO_IO)
    elif r.has_disk_rates and not r.disk_size and (device.major, device.minor) == NO_DEVICE:
        found.append(NO_STORE_DEVICE)
    if (r.cpuset_cpus or r.cpuset_mems) and not offers.cpuset:
        found.append(NO_CPUSET)
    return found


def of_host(offers: Offers, device: StoreDevice, cgroup_version: int) -> list[str]:
    """The warnings of `docker info`, in dockerd's words where it has them."""
    found = []
    if not offers.swap:
        found.append("WARNING: No swap limit support")
    if not offers.cpuset:
        found.append("WARNING: No cpuset support")
    if not offers.io:
        found.append("WARNING: No blkio throttle support")
    elif (device.major, device.minor) == NO_DEVICE:
        found.append("WARNING: Disk rates hold only for containers with a disk size: the store has no block device")
    elif cgroup_version == 1:
        found.append(
            "WARNING: Disk rates hold for reads and for direct or synced writes, not for buffered ones (cgroup v1)"
        )
    if cgroup_version == 1:
        found.append("WARNING: No oom kill disable support")
    return found
