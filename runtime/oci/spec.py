"""The OCI runtime configuration (runtime-spec 1.2, config.md and config-linux.md), as far as this runtime acts on it.

`Spec.parse` is strict about the types of what it knows and ignores what it does not know, as the specification asks.
`default` builds the engine's configuration: Docker's capabilities, mounts, masks and devices.
"""

from __future__ import annotations

import json
from dataclasses import field
from pathlib import Path
from typing import Any, Self

from runtime.dataclass import dataclass
from runtime.oci.fields import decode, encode, loads
from runtime.oci.spec_resources import LinuxResources
from runtime.oci.state import CONFIG

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
    "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
    "/sys/block", "/sys/fs/ext4", "/proc/kallsyms", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/kpagecgroup", "/proc/modules", "/proc/partitions", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/swaps", "/proc/diskstats",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL_NAMESPACES = ("user", "pid", "mount", "uts", "ipc", "cgroup", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who the program runs as. `username` ("name", "uid:group" …) is looked up in the image and wins over the ids."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """A limit of setrlimit(2), `type` like "RLIMIT_NOFILE"."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The five sets, names as in capabilities(7)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Self:
        """Docker's way: the same names bounding, effective and permitted, none inheritable or ambient."""
        return cls(bounding=names, effective=names, permitted=names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSize:
    """Characters of a terminal."""

    height: int
    width: int


def console_size(height: int, width: int) -> ConsoleSize | None:
    """None when both are 0, Docker's way to leave it unsaid."""
    return ConsoleSize(height=height, width=width) if height or width else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """sched_setattr(2): `policy` like "SCHED_BATCH", `flags` like "SCHED_FLAG_RESET_ON_FORK"; the last three in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IoPriority:
    """ioprio_set(2): `scheduling_class` like "IOPRIO_CLASS_BE", `priority` 0 to 7."""

    scheduling_class: str = field(default="IOPRIO_CLASS_BE", metadata={"name": "class"})
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuAffinity:
    """Lists of CPUs of a program run by exec: before it is in its group, and after."""

    initial: str = ""
    final: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The program to run. Without `capabilities` it has none."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = field(default_factory=User)
    capabilities: Capabilities = field(default_factory=Capabilities)
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    terminal: bool = False
    console_size: ConsoleSize | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = field(default=None, metadata={"name": "ioPriority"})
    exec_cpu_affinity: CpuAffinity | None = field(default=None, metadata={"name": "execCPUAffinity"})
    apparmor_profile: str = ""
    selinux_label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root file system; `path` counts only where the bundle has no `root.json`."""

    path: str = "rootfs"
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """`size` ids from `container_id` inside are `host_id` … outside."""

    container_id: int = field(metadata={"name": "containerID"})
    host_id: int = field(metadata={"name": "hostID"})
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount inside the container; mountoptions.py reads `options`. Ids are the container's with the option "idmap"."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace to have; with `path` an existing one is joined."""

    type: str
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program to run at one point of the container's life; `timeout` in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Hooks by their point (config.md, "POSIX-platform Hooks")."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompArg:
    """A condition on one argument of a system call; `op` like "SCMP_CMP_MASKED_EQ"."""

    index: int
    value: int
    value_two: int = 0
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompSyscall:
    """What to do on these system calls when all `args` hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seccomp:
    """A system call filter; actions like "SCMP_ACT_ERRNO"."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SeccompSyscall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node. Without numbers the host's at the same path is lent."""

    type: str
    path: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOffset:
    """How far a clock of the time namespace is ahead of the host's."""

    secs: int = 0
    nanosecs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Personality:
    """personality(2): `domain` "LINUX" or "LINUX32"."""

    domain: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetDevice:
    """The name an interface of the host's gets inside, "" for the one it has."""

    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelRdt:
    """Cache and memory bandwidth by resctrl; refused, for want of such a machine to try it on."""

    clos_id: str = field(default="", metadata={"name": "closID"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Linux:
    """What is Linux's own. Without `seccomp` there is no filter; `default` fills in the engine's."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    resources: LinuxResources = field(default_factory=LinuxResources)
    cgroups_path: str = ""
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)
    rootfs_propagation: str = ""
    time_offsets: dict[str, TimeOffset] = field(default_factory=dict)
    personality: Personality | None = None
    mount_label: str = ""
    net_devices: dict[str, NetDevice] = field(default_factory=dict)
    intel_rdt: IntelRdt | None = None

    def namespace(self, kind: str) -> Namespace | None:
        """The entry of that type, None when the host's is shared."""
        return next((n for n in self.namespaces if n.type == kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container's configuration: the content of `config.json`."""

    oci_version: str = "1.2.0"
    process: Process
    root: Root = field(default_factory=Root)
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    domainname: str = ""
    hooks: Hooks = field(default_factory=Hooks)
    annotations: dict[str, str] = field(default_factory=dict)
    linux: Linux = field(default_factory=Linux)

    @classmethod
    def parse(cls, data: Any) -> Self:
        """From decoded JSON; raises SpecFault naming the field that is wrong."""
        return decode(cls, data, "config")

    @classmethod
    def decode(cls, data: bytes, name: str = CONFIG) -> Self:
        """From the bytes of the file `name`; raises SpecFault, also for what is no JSON."""
        return cls.parse(loads(data, name))

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a `config.json`."""
        return cls.decode(path.read_bytes(), str(path))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values under the specification's names; what is None or empty is left out."""
        return encode(self)

    def write(self, path: Path) -> None:
        """Write `config.json`."""
        path.write_text(json.dumps(self.to_json(), indent=1))
