"""The limits of an OCI configuration (config-linux.md, "resources"): bytes, microseconds and counts as they stand in the file."""

from __future__ import annotations

from dataclasses import field

from runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRuleSpec:
    """An entry of the device list ("allowed device list"); a number of -1 means any, like one that is missing."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes, -1 without limit; `swap` is memory and swap together. `kernel` and `kernelTCP` are gone from kernels."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool = field(default=False, metadata={"name": "disableOOMKiller"})
    use_hierarchy: bool | None = None
    check_before_update: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """`shares` as v1 counts them (1024 the default); `quota`, `burst`, `period` and the real-time pair in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pids:
    """Greatest number of processes and threads; 0 or less is no limit."""

    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDevice:
    """A rate of one block device, bytes or operations per second."""

    major: int
    minor: int
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDevice:
    """A share of one block device's time, 10 to 1000."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


NO_DEVICE = (0, 0)  # major and minor that no block device has


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIO:
    """Rates of block devices. An entry for the store's device holds for the loop device of the writable layer too.

    A store that lies on none (tmpfs, btrfs, an overlay) is NO_DEVICE: the entry is for the loop device alone.
    """

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(
        default=(), metadata={"name": "throttleReadIOPSDevice"}
    )
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(
        default=(), metadata={"name": "throttleWriteIOPSDevice"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HugepageLimit:
    """Bytes of huge pages of one size, like "2MB"."""

    page_size: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfacePriority:
    """Priority of what leaves by one interface."""

    name: str
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLimits:
    """Marks of net_cls and net_prio, which only v1 has."""

    class_id: int | None = field(default=None, metadata={"name": "classID"})
    priorities: tuple[InterfacePriority, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rdma:
    """Greatest numbers of one RDMA device's handles and objects."""

    hca_handles: int | None = None
    hca_objects: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxResources:
    """The container's limits. `unified` names files of v2."""

    devices: tuple[DeviceRuleSpec, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, metadata={"name": "blockIO"})
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkLimits | None = None
    rdma: dict[str, Rdma] = field(default_factory=dict)
    unified: dict[str, str] = field(default_factory=dict)
