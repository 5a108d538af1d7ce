"""cgroup v1: one hierarchy for each controller (Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from runtime.kernel.cgroups import (
    CgroupFault,
    DeviceRate,
    DeviceRule,
    Marks,
    Moved,
    Offers,
    Resources,
    Sample,
    below_use,
    files,
    lacks,
)

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer")
FURTHER = ("cpuset", "hugetlb", "net_cls", "net_prio", "rdma")  # groups are made there only for who is limited by them
NEEDED = ("cpu", "memory", "pids")
_WAYS = ("Read", "Write")
_THROTTLES = (
    ("read_bps", "read_bps"),
    ("write_bps", "write_bps"),
    ("read_iops", "read_iops"),
    ("write_iops", "write_iops"),
)


def find(mountinfo: Path) -> V1:
    """The hierarchies that are mounted; raises CgroupFault when cpu, memory or pids is missing."""
    mounts: dict[str, Path] = {}
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = right.split(" ", 2)
        if kind == "cgroup":
            mounts.update(dict.fromkeys(set(options.split(",")) & {*CONTROLLERS, *FURTHER}, Path(left.split()[4])))
    missing = [name for name in NEEDED if name not in mounts]
    if missing:
        raise CgroupFault(
            f"The kernel offers no cgroup controller {', '.join(missing)}.",
            "Mount cgroup2 on /sys/fs/cgroup, or the v1 controllers below it.",
        )
    return V1(mounts)


class V1:
    """The v1 hierarchies; `mounts` are controllers and where they are mounted (two may share a mount)."""

    version = 1

    def __init__(self, mounts: dict[str, Path]) -> None:
        self.mounts = mounts
        self._roots = list(dict.fromkeys(mounts[name] for name in CONTROLLERS if name in mounts))

    def _file(self, path: str, name: str) -> str:
        controller = name.split(".", 1)[0]
        return f"{self.mounts.get(controller, '/nonexistent')}/{path}/{name}"

    def offers(self, path: str) -> Offers:
        """See Cgroups.offers: the files of the hierarchies' roots."""
        return Offers(
            swap=(self.mounts["memory"] / "memory.memsw.limit_in_bytes").exists(),
            io="blkio" in self.mounts and (self.mounts["blkio"] / "blkio.throttle.read_bps_device").exists(),
            cpuset="cpuset" in self.mounts,
        )

    def create(self, path: str, resources: Resources) -> None:
        """See Cgroups.create."""
        for root in self._roots:
            try:
                os.mkdir(f"{root}/{path}")  # noqa: PTH102  a start waits for it, and mostly only the last part is missing
            except OSError:
                (root / path).mkdir(parents=True, exist_ok=True)
        self.set_limits(path, resources)

    def _folders(self, path: str) -> list[Path]:
        own = [folder for root in self._further() if (folder := root / path).is_dir()]
        return [*(root / path for root in self._roots), *own]

    def _further(self) -> list[Path]:
        return [root for name in FURTHER if (root := self.mounts.get(name)) and root not in self._roots]

    def attach(self, path: str, pid: int) -> None:
        """See Cgroups.attach."""
        for folder in self._folders(path):
            files.write(folder / "cgroup.procs", pid)

    def doors(self, path: str) -> list[int]:
        """See Cgroups.doors."""
        return [os.open(folder / "tasks", os.O_WRONLY | os.O_CLOEXEC) for folder in self._folders(path)]

    def set_limits(self, path: str, resources: Resources) -> None:
        """See Cgroups.set_limits. A CPU quota above the parent's, which v1 refuses, is held at the parent's."""
        r = resources
        if r.memory_bytes is not None:
            self._set_memory(path, r.memory_bytes, r.swap_bytes)
        if r.cpuset_cpus or r.cpuset_mems:
            self._set_cpuset(path, r.cpuset_cpus, r.cpuset_mems)
        if r.cpu_quota_us is not None:
            self._set_quota(path, r.cpu_quota_us, r.cpu_period_us)
        if r.cpu_weight is not None:
            files.write(self._file(path, "cpu.shares"), min(262_144, max(2, r.cpu_weight * 1024 // 100)))
        if r.memory_low_bytes is not None:
            files.write(self._file(path, "memory.soft_limit_in_bytes"), r.memory_low_bytes)
        if r.pids is not None:
            files.write(self._file(path, "pids.max"), "max" if r.pids <= 0 else r.pids)
        for rate in r.io:
            self._set_rate(path, rate)
        for name, text in r.files:
            self._write_further(path, name, text)
        if r.devices and "devices" in self.mounts:
            self._set_devices(path, r.devices)

    def _write_further(self, path: str, name: str, text: str) -> None:
        root = self.mounts.get(name.split(".", 1)[0])
        if root is None or not (root / name).exists():
            raise lacks(name)
        (root / path).mkdir(parents=True, exist_ok=True)
        files.write(root / path / name, text)

    def _set_quota(self, path: str, quota_us: int, period_us: int) -> None:
        quota = self._file(path, "cpu.cfs_quota_us")
        if quota_us <= 0:
            files.write(quota, -1)
            return
        files.write(quota, -1)
        files.write(self._file(path, "cpu.cfs_period_us"), period_us)
        try:
            files.write(quota, quota_us)
        except OSError as error:
            limit = self._parent_quota(path, period_us)
            if error.errno != errno.EINVAL or limit is None or limit >= quota_us:
                raise
            files.write(quota, limit)

    def _parent_quota(self, path: str, period_us: int) -> int | None:
        parent = path.rpartition("/")[0]
        while parent:
            quota = files.number(files.read(self._file(parent, "cpu.cfs_quota_us")))
            period = files.number(files.read(self._file(parent, "cpu.cfs_period_us")))
            if quota and period:
                return quota * period_us // period
            parent = parent.rpartition("/")[0]
        return None

    def _set_memory(self, path: str, memory: int, swap: int | None) -> None:
        limit, both = self._file(path, "memory.limit_in_bytes"), self._file(path, "memory.memsw.limit_in_bytes")
        total = -1 if memory < 0 or swap is None or swap < 0 else memory + swap
        steps = [(limit, memory), (both, total)] if Path(both).exists() else [(limit, memory)]
        current = files.number(files.read(both)) or 1 << 62
        if memory < 0 or memory > current:
            steps.reverse()  # memory may never pass memory and swap together
        for file, value in steps:
            try:
                files.write(file, value)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                used = files.number(files.read(file.replace("limit_in_bytes", "usage_in_bytes")))
                raise below_use("memory" if file == limit else "memory and swap", used, value) from error

    def _set_rate(self, path: str, rate: DeviceRate) -> None:
        if "blkio" not in self.mounts:
            return
        for field, name in _THROTTLES:
            value = f"{rate.major}:{rate.minor} {getattr(rate, field)}"
            files.write(self._file(path, f"blkio.throttle.{name}_device"), value)

    def _set_cpuset(self, path: str, cpus: str, mems: str) -> None:
        root = self.mounts.get("cpuset")
        if root is None:
            raise CgroupFault("The kernel offers no cpuset controller.", "Leave the list of CPUs out.")
        folder = root
        for part in path.split("/"):
            above, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not files.read(folder / name).strip():
                    files.write(folder / name, (above / name).read_text().strip())
        for name, value in (("cpuset.cpus", cpus), ("cpuset.mems", mems)):
            if value:
                files.write(folder / name, value)

    def _set_devices(self, path: str, rules: tuple[DeviceRule, ...]) -> None:
        for allow, group in groupby(rules, key=lambda rule: rule.allow):
            file = self._file(path, "devices.allow" if allow else "devices.deny")
            files.write(file, *(_device(rule) for rule in group))

    def freeze(self, path: str, *, frozen: bool) -> None:
        """See Cgroups.freeze."""
        state = self._file(path, "freezer.state")
        wanted = "FROZEN" if frozen else "THAWED"

        def reached() -> bool:
            files.write(state, wanted)
            return files.read(state).strip() == wanted

        if not files.until(reached):
            raise CgroupFault(f"The processes of {path} did not reach {wanted} within 5 s.", "Try again.")

    def frozen(self, path: str) -> bool:
        """See Cgroups.frozen."""
        return files.read(self._file(path, "freezer.state")).strip() in ("FROZEN", "FREEZING")

    def kill(self, path: str) -> None:
        """See Cgroups.kill. Frozen while signalled, so that a fork bomb cannot outrun the loop."""
        folder = self.mounts["pids"] / path

        def empty() -> bool:
            if not files.pids(folder):
                return True
            with contextlib.suppress(OSError):
                files.write(self._file(path, "freezer.state"), "FROZEN")
            files.signal_all(folder)
            for group in files.below(
                Path(self._file(path, "freezer.state")).parent
            ):  # one below may be frozen by itself
                with contextlib.suppress(OSError):
                    files.write(group / "freezer.state", "THAWED")
            return not files.pids(folder)

        files.until(empty)

    def pids(self, path: str) -> list[int]:
        """See Cgroups.pids."""
        return files.pids(self.mounts["pids"] / path)

    def sample(self, path: str) -> Sample:
        """See Cgroups.sample."""
        usage = int(Path(self._file(path, "memory.usage_in_bytes")).read_text())
        memory = files.flat(files.read(self._file(path, "memory.stat")))
        cpu = files.flat(files.read(self._file(path, "cpu.stat")))
        marks, by_device = self._marks(path, cpu), self.devices(path)
        io, inactive = files.total(by_device), memory.get("total_inactive_file", 0)
        return Sample(
            cpu_ns=marks.cpu_ns,
            throttled_ns=cpu.get("throttled_time", 0),
            throttled_periods=marks.throttled_periods,
            periods=cpu.get("nr_periods", 0),
            memory_bytes=max(0, usage - inactive),
            cache_bytes=memory.get("total_cache", 0),
            memory_limit_bytes=files.number(files.read(self._file(path, "memory.limit_in_bytes"))),
            pids=marks.pids,
            pids_limit=marks.pids_limit,
            read_bytes=io.read_bytes,
            write_bytes=io.write_bytes,
            read_ops=io.read_ops,
            write_ops=io.write_ops,
            oom_kills=self.oom_kills(path),
            memory_held_bytes=max(0, usage - inactive - memory.get("total_active_file", 0)),
            memory_charged_bytes=usage,
            marks=marks,
            devices=by_device,
        )

    def marks(self, path: str) -> Marks:
        """See Cgroups.marks."""
        return self._marks(path, files.flat(Path(self._file(path, "cpu.stat")).read_text()))

    def _marks(self, path: str, cpu: Mapping[str, int]) -> Marks:
        """Counts of memory and swap are failcnt, of this group's limit alone; some kernels (6.18) leave them at 0."""
        return Marks(
            cpu_ns=files.number(files.read(self._file(path, "cpuacct.usage"))),
            throttled_periods=cpu.get("nr_throttled", 0),
            pids=files.number(files.read(self._file(path, "pids.current"))),
            pids_limit=files.number(files.read(self._file(path, "pids.max"))),
            forks_refused=files.flat(files.read(self._file(path, "pids.events"))).get("max", 0),
            memory_at_max=files.number(files.read(self._file(path, "memory.failcnt"))),
            swap_at_max=files.number(files.read(self._file(path, "memory.memsw.failcnt"))),
        )

    def devices(self, path: str) -> Mapping[str, Moved]:
        """See Cgroups.devices: what throttling saw."""
        moved = _by_device(files.read(self._file(path, "blkio.throttle.io_service_bytes_recursive")))
        served = _by_device(files.read(self._file(path, "blkio.throttle.io_serviced_recursive")))
        return {
            device: Moved(*(by.get(device, {}).get(way, 0) for by in (moved, served) for way in _WAYS))
            for device in moved | served
        }

    def kills_whole(self, path: str) -> bool:
        """See Cgroups.kills_whole: v1 ends one process."""
        return False

    def oom_kills(self, path: str) -> int:
        """See Cgroups.oom_kills. The kernel counts in the victim's group, whichever level's limit was hit."""
        return sum(
            files.flat(files.read(group / "memory.oom_control")).get("oom_kill", 0)
            for group in files.below(self.mounts["memory"] / path)
        )

    def remove(self, path: str) -> None:
        """See Cgroups.remove. Without memory.force_empty page cache would pin the group as a dying one."""
        roots = [*self._roots, *self._further()]
        stuck = [str(root / path) for root in roots if not files.remove_tree(root / path, _force_empty)]
        if stuck:
            raise CgroupFault(f"The groups {', '.join(stuck)} still hold processes.", "End them, then remove again.")

    def list(self, path: str) -> Sequence[str]:
        """See Cgroups.list."""
        found: dict[str, None] = {}
        for root in dict.fromkeys(self.mounts.values()):
            top = root / path
            found.update(dict.fromkeys(str(group.relative_to(root)) for group in files.below(top) if group != top))
        return [*found]

    def dying(self) -> int:
        """See Cgroups.dying: groups counted in /proc/cgroups beyond the folders that exist."""
        for line in Path("/proc/cgroups").read_text().splitlines():
            name, *numbers = line.split()
            if name == "memory":
                return max(0, int(numbers[1]) - sum(1 for _ in files.below(self.mounts["memory"])))
        return 0


def _force_empty(group: Path) -> None:
    with contextlib.suppress(OSError):  # only the memory hierarchy has the file
        fd = os.open(group / "memory.force_empty", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)


def _by_device(text: str) -> dict[str, dict[str, int]]:
    """Lines of "MAJ:MIN Operation number"; the line of the sum has two words and is left out."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    return found


def _device(rule: DeviceRule) -> str:
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return "a" if rule.kind == "a" else f"{rule.kind} {major}:{minor} {rule.access}"
