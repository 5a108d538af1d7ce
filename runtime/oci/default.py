"""The configuration the engine gives a container: Docker's, in a user namespace of its own."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.oci import seccomp_profile
from runtime.oci.spec import (
    ALL_NAMESPACES,
    DEFAULT_CAPABILITIES,
    MASKED_PATHS,
    READONLY_PATHS,
    Capabilities,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Seccomp,
    Spec,
    User,
    console_size,
)
from runtime.oci.spec_resources import DeviceRuleSpec, LinuxResources

ID_RANGE = 65_536

DEFAULT_MOUNTS = (
    Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    Mount(
        destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")
    ),
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", "ro")),
    Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("nosuid", "noexec", "nodev", "ro")),
    Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")),
)

# Ports below 1024 and ping for everybody inside, as in the sandboxes that the engine makes.
_OWN_NETWORK = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 65535"}
_CHARACTER_DEVICES = (
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 2),
)  # mem, tty, ptmx; 5:1 is the host's console
DEVICE_RULES = (
    DeviceRuleSpec(allow=False),
    DeviceRuleSpec(allow=True, type="c", access="m"),
    DeviceRuleSpec(allow=True, type="b", access="m"),
    *(DeviceRuleSpec(allow=True, type="c", major=major, minor=minor) for major, minor in _CHARACTER_DEVICES),
    DeviceRuleSpec(allow=True, type="c", major=136),  # the slaves of /dev/pts
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the engine says about one container.

    `cgroups_path` is relative to the hierarchies' roots. Ids 0 to 65,535 inside are `id_base` on outside. `netns` is a
    namespace to join; without it one with only `lo` is made, unless `host_network`. `binds` are resolv.conf, hosts, hostname
    and volumes. `seccomp` replaces the default filter, `unconfined` leaves it out. A host name is cut to 63 bytes. The
    default device list is put before `resources.devices`. `console_size` is the terminal's (height, width), zeros leave it unsaid.
    `user` is Docker's "name|uid[:group|gid]", looked up in the image.
    """

    args: tuple[str, ...]
    hostname: str
    cgroups_path: str
    id_base: int
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    netns: Path | None = None
    host_network: bool = False
    resources: LinuxResources = field(default_factory=LinuxResources)
    readonly: bool = False
    no_new_privileges: bool = False
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    rlimits: tuple[Rlimit, ...] = ()
    binds: tuple[Mount, ...] = ()
    shm_bytes: int = 64 << 20
    sysctl: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    seccomp: Seccomp | None = None
    unconfined: bool = False


def default(o: Options) -> Spec:
    """The engine's configuration of one container: Docker's default, in namespaces of its own."""
    kinds = tuple(kind for kind in ALL_NAMESPACES if not (o.host_network and kind == "network"))
    namespaces = tuple(Namespace(type=k, path=str(o.netns) if k == "network" and o.netns else "") for k in kinds)
    ids = (IdMapping(container_id=0, host_id=o.id_base, size=ID_RANGE),)
    shm = Mount(
        destination="/dev/shm",
        type="tmpfs",
        source="shm",
        options=("nosuid", "noexec", "nodev", "mode=1777", f"size={o.shm_bytes}"),
    )
    return Spec(
        process=Process(
            args=o.args,
            env=o.env,
            cwd=o.cwd,
            user=User(username=o.user),
            capabilities=Capabilities.of(o.capabilities),
            rlimits=o.rlimits,
            no_new_privileges=o.no_new_privileges,
            terminal=o.terminal,
            console_size=console_size(*o.console_size),
        ),
        root=Root(readonly=o.readonly),
        mounts=(*DEFAULT_MOUNTS, shm, *(_mapped(mount) for mount in o.binds)),
        hostname=o.hostname[:63],
        annotations=o.annotations,
        linux=Linux(
            namespaces=namespaces,
            uid_mappings=ids,
            gid_mappings=ids,
            resources=_with_devices(o.resources),
            cgroups_path=o.cgroups_path,
            seccomp=None if o.unconfined else o.seccomp or seccomp_profile.default(),
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            sysctl=o.sysctl if o.netns or o.host_network else _OWN_NETWORK | o.sysctl,
        ),
    )


def _mapped(mount: Mount) -> Mount:
    """A bind shows its files with the container's ids."""
    bind = mount.type == "bind" and "idmap" not in mount.options
    return replace(mount, options=(*mount.options, "idmap")) if bind else mount


def _with_devices(resources: LinuxResources) -> LinuxResources:
    return replace(resources, devices=(*DEVICE_RULES, *resources.devices))
