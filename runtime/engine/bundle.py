"""A record made into what the launcher starts: the OCI configuration and the three files a container gets from the host."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from runtime.engine import tini
from runtime.engine.mountrequest import VolumeMount
from runtime.engine.records import Record
from runtime.engine.request import HostConfig
from runtime.engine.resources import CPU_PERIOD_US, Resources
from runtime.kernel.capabilities import NAMES
from runtime.kernel.cgroups import DeviceRate
from runtime.kernel.cgroups import Resources as GroupLimits
from runtime.kernel.process import replace_small
from runtime.oci import seccomp_profile
from runtime.oci.default import Options, default
from runtime.oci.fields import encode
from runtime.oci.mountoptions import NO_LINKS, SEED, VOLUME
from runtime.oci.spec import DEFAULT_CAPABILITIES, Mount, Rlimit, Spec
from runtime.oci.spec_resources import NO_DEVICE, BlockIO, Cpu, LinuxResources, Memory, Pids, ThrottleDevice

HOST_FILES = ("resolv.conf", "hosts", "hostname")


@dataclass(frozen=True, slots=True)
class StoreDevice:
    """The block device the store lies on, whole (blkio takes no partitions); NO_DEVICE when it has none, as on a tmpfs."""

    major: int
    minor: int

    @classmethod
    def of(cls, path: Path) -> StoreDevice:
        """Find it from `path`'s st_dev."""
        number = path.stat().st_dev
        major, minor = os.major(number), os.minor(number)
        node = Path(f"/sys/dev/block/{major}:{minor}")
        if not node.exists():
            return cls(*NO_DEVICE)
        if (node / "partition").exists():
            whole = (node.resolve().parent / "dev").read_text().strip().split(":")
            major, minor = int(whole[0]), int(whole[1])
        return cls(major, minor)


def hostname(record: Record) -> str:
    """What the container calls itself: as asked, else 12 digits of the id, as Docker."""
    return record.config.hostname or record.id[:12]


def cgroup_path(root: str, record: Record) -> str:
    """`moorage-<short>/<team>/<app>/<instance>`; without a parent the container lies in `default`."""
    return f"{root}/{record.host.cgroup_parent or 'default'}/{record.id}"


def linux_resources(r: Resources, device: StoreDevice) -> LinuxResources:
    """The limits as config.json says them."""
    swap = None
    if r.memory:
        swap = r.memory_swap or r.memory * 2
    quota = r.quota_us
    return LinuxResources(
        memory=Memory(limit=r.memory or None, reservation=r.memory_reservation or None, swap=swap)
        if r.memory or r.memory_reservation
        else None,
        cpu=Cpu(
            shares=r.cpu_shares or None,
            quota=quota or None,
            period=(r.cpu_period_us or CPU_PERIOD_US) if quota else None,
            cpus=r.cpuset_cpus,
            mems=r.cpuset_mems,
        ),
        pids=Pids(limit=r.pids) if r.pids else None,
        block_io=_block_io(r, device),
    )


def _block_io(r: Resources, device: StoreDevice) -> BlockIO | None:
    if (device.major, device.minor) == NO_DEVICE and not r.disk_size:
        return None

    def rates(rate: int) -> tuple[ThrottleDevice, ...]:
        return (ThrottleDevice(major=device.major, minor=device.minor, rate=rate),) if rate else ()

    if not r.has_disk_rates:
        return None
    return BlockIO(
        throttle_read_bps_device=rates(r.disk_read_bps),
        throttle_write_bps_device=rates(r.disk_write_bps),
        throttle_read_iops_device=rates(r.disk_read_iops),
        throttle_write_iops_device=rates(r.disk_write_iops),
    )


def group_limits(r: Resources, device: StoreDevice, loop: tuple[int, int] | None = None) -> GroupLimits:
    """The limits of a living group, every value said: what is 0 in `r` is lifted."""
    swap = -1
    if r.memory and r.memory_swap >= 0:
        swap = (r.memory_swap or r.memory * 2) - r.memory
    shares = r.cpu_shares or 1024
    devices = [d for d in ((device.major, device.minor), loop) if d and d != NO_DEVICE]
    return GroupLimits(
        cpu_quota_us=r.quota_us or -1,
        cpu_period_us=r.cpu_period_us or CPU_PERIOD_US,
        cpu_weight=max(1, min(10_000, round(shares * 100 / 1024))),
        cpuset_cpus=r.cpuset_cpus,
        cpuset_mems=r.cpuset_mems,
        memory_bytes=r.memory or -1,
        swap_bytes=swap,
        pids=r.pids or -1,
        io=tuple(
            DeviceRate(
                major=major,
                minor=minor,
                read_bps=r.disk_read_bps,
                write_bps=r.disk_write_bps,
                read_iops=r.disk_read_iops,
                write_iops=r.disk_write_iops,
            )
            for major, minor in devices
        ),
    )


def capabilities(record: Record) -> tuple[str, ...]:
    """Docker's default set, less what was dropped; what was added counts on a trusted engine only (the request refuses else)."""

    everything = {f"CAP_{name}" for name in NAMES}

    def full(names: tuple[str, ...]) -> set[str]:
        return everything if "ALL" in names else {f"CAP_{name}" for name in names}

    if record.host.privileged:
        return tuple(sorted(everything))
    return tuple(sorted((set(DEFAULT_CAPABILITIES) - full(record.host.cap_drop)) | full(record.host.cap_add)))


def make_spec(
    record: Record,
    *,
    root: str,
    home: Path,
    netns: Path | None,
    device: StoreDevice,
    seeded: tuple[VolumeMount, ...] = (),
) -> Spec:
    """The OCI configuration of a container about to start, of the engine whose files lie in `home`; `seeded` are those of its
    volumes that get what the image has. Raises Invalid."""
    folder = home / "containers" / record.id
    host, process = record.host, record.process
    binds = [
        Mount(destination=f"/etc/{name}", type="bind", source=str(folder / name), options=("bind", "rprivate"))
        for name in HOST_FILES
    ]
    binds += _asked_mounts(host, home, seeded)
    if host.init:
        binds.append(tini.mount(home))
    options = Options(
        args=tini.before(process.args) if host.init else process.args,
        hostname=hostname(record),
        cgroups_path=cgroup_path(root, record),
        id_base=record.id_base,
        env=process.env,
        cwd=process.cwd or "/",
        user=process.user,
        netns=netns,
        host_network=host.network_mode == "host",
        resources=linux_resources(host.resources, device),
        readonly=host.read_only,
        no_new_privileges=host.no_new_privileges,
        terminal=record.config.tty,
        console_size=host.console_size,
        capabilities=capabilities(record),
        rlimits=tuple(Rlimit(type=f"RLIMIT_{n.upper()}", soft=soft, hard=hard) for n, soft, hard in host.ulimits),
        binds=tuple(binds),
        shm_bytes=host.shm_size,
        sysctl=host.sysctls,
        unconfined=host.privileged or host.unconfined,
    )
    spec = default(options)
    if not host.oom_score_adj:
        return spec
    return replace(spec, process=replace(spec.process, oom_score_adj=host.oom_score_adj))


def _asked_mounts(host: HostConfig, home: Path, seeded: tuple[VolumeMount, ...]) -> list[Mount]:
    """Binds, volumes and tmpfs, the upper folders first, so that none covers another."""
    found = []
    for bind in host.binds:
        kind: tuple[str, ...] = ("rbind", "rprivate", "ro" if bind.read_only else "rw")
        kind += (NO_LINKS,) if bind.confined else ()
        found.append(Mount(destination=bind.target, type="bind", source=bind.source, options=kind))
    for volume in host.volumes:
        words = ("rw" if not volume.read_only else "ro", VOLUME, *((SEED,) if volume in seeded else ()))
        source = str(home / "volumes" / volume.name)
        found.append(Mount(destination=volume.target, type="bind", source=source, options=words))
    for target, flags in host.tmpfs.items():
        given = tuple(o for o in flags.split(",") if o)
        found.append(
            Mount(destination=target, type="tmpfs", source="tmpfs", options=("nosuid", "nodev", "noexec", *given))
        )
    return sorted(found, key=lambda mount: mount.destination.count("/"))


def write_config(folder: Path, spec: Spec) -> None:
    """Write config.json. Without fsync: what a power cut takes is made again at the next start."""
    replace_small(f"{folder}/config.json", encoded(spec).encode())


def write_host_files(folder: Path, record: Record, *, address: str, resolv: str) -> None:
    """Write the three files that a container gets from the host."""
    name = hostname(record)
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", *_extra(record)]
    if address:
        full = f"{name}.{record.config.domainname}\t{name}" if record.config.domainname else name
        lines.append(f"{address}\t{full}")
    texts = {"hosts": "\n".join(lines) + "\n", "hostname": name + "\n", "resolv.conf": _resolv(record, resolv)}
    for file, text in texts.items():
        replace_small(f"{folder}/{file}", text.encode(), mode=0o644)


def encoded(spec: Spec) -> str:
    """The specification as JSON. Its largest part, the default filter, is the same for all and encoded once."""
    if spec.linux.seccomp is not seccomp_profile.default():
        return json.dumps(spec.to_json(), separators=(",", ":"))
    data = replace(spec, linux=replace(spec.linux, seccomp=None)).to_json()
    linux = json.dumps(data.pop("linux"), separators=(",", ":"))
    rest = json.dumps(data, separators=(",", ":"))
    return f'{rest[:-1]},"linux":{linux[:-1]},"seccomp":{_default_filter()}}}}}'


@cache
def _default_filter() -> str:
    return json.dumps(encode(seccomp_profile.default()), separators=(",", ":"))


def _extra(record: Record) -> list[str]:
    pairs = (entry.partition(":") for entry in record.host.extra_hosts)
    return [f"{address}\t{name}" for name, _, address in pairs]


def _resolv(record: Record, given: str) -> str:
    host = record.host
    if not host.dns and not host.dns_search:
        return given
    lines = [f"nameserver {server}" for server in host.dns] or [
        x for x in given.splitlines() if x.startswith("nameserver")
    ]
    if host.dns_search:
        lines.append("search " + " ".join(host.dns_search))
    return "\n".join(lines) + "\n"
