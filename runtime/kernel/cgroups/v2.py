"""cgroup v2: one hierarchy (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.kernel.cgroups import (
    CgroupFault,
    Marks,
    Moved,
    Offers,
    Resources,
    Sample,
    below_use,
    devices,
    files,
    lacks,
)

CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset", "hugetlb", "rdma")
_DROPPABLE = ("active_file", "inactive_file", "slab_reclaimable")
NEEDED = ("cpu", "memory", "pids")


def find(mountinfo: Path) -> V2 | None:
    """The unified hierarchy, None when it is not mounted or does not carry the controllers (hybrid hosts)."""
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        root = Path(left.split()[4])
        if right.startswith("cgroup2 ") and set(NEEDED) <= set(files.read(root / "cgroup.controllers").split()):
            return V2(root)
    return None


class V2:
    """The unified hierarchy mounted at `root`."""

    version = 2

    def __init__(self, root: Path) -> None:
        self.root = root

    def offers(self, path: str) -> Offers:
        """See Cgroups.offers: the root has no limits, so a group that is not there is made, looked at and removed."""
        folder = self.root / path
        made = not folder.exists()
        if made:
            self.create(path, Resources())
        try:
            return Offers(
                swap=(folder / "memory.swap.max").exists(),
                io=(folder / "io.max").exists(),
                cpuset=(folder / "cpuset.cpus").exists(),
            )
        finally:
            if made:
                folder.rmdir()

    def create(self, path: str, resources: Resources) -> None:
        """See Cgroups.create."""
        folder = self.root
        for part in path.split("/"):
            self._enable(folder)
            folder = folder / part
            folder.mkdir(exist_ok=True)
        self.set_limits(path, resources)

    def _enable(self, folder: Path) -> None:
        offered = set((folder / "cgroup.controllers").read_text().split())
        enabled = set((folder / "cgroup.subtree_control").read_text().split())
        for name in CONTROLLERS:
            if name in offered - enabled:
                files.write(folder / "cgroup.subtree_control", f"+{name}")

    def open(self, path: str) -> int:
        """A descriptor of the group, for CLONE_INTO_CGROUP."""
        return os.open(self.root / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def attach(self, path: str, pid: int) -> None:
        """See Cgroups.attach."""
        files.write(self.root / path / "cgroup.procs", pid)

    def doors(self, path: str) -> list[int]:
        """See Cgroups.doors."""
        return [os.open(self.root / path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)]

    def set_limits(self, path: str, resources: Resources) -> None:
        """See Cgroups.set_limits."""
        r, folder = resources, self.root / path
        if r.memory_bytes is not None and r.memory_bytes >= 0:
            _refuse_below_use(folder, r.memory_bytes, r.swap_bytes)
        for name, value in (
            ("memory.low", r.memory_low_bytes),
            ("memory.max", r.memory_bytes),
            ("memory.swap.max", r.swap_bytes),
            ("pids.max", r.pids),
        ):
            if value is not None and (folder / name).exists():  # swap may be compiled out
                files.write(folder / name, "max" if value < 0 or (name == "pids.max" and not value) else value)
        _set_cpu(folder, r)
        if r.io and (folder / "io.max").exists():
            _set_io(folder, r)
        for name, text in r.files:
            if not (folder / name).exists():
                raise lacks(name)
            files.write(folder / name, text)
        if r.oom_group:
            files.write(folder / "memory.oom.group", 1)
        if r.devices:
            devices.limit(folder, r.devices)

    def freeze(self, path: str, *, frozen: bool) -> None:
        """See Cgroups.freeze."""
        folder = self.root / path
        files.write(folder / "cgroup.freeze", int(frozen))
        if not files.until(lambda: files.flat(files.read(folder / "cgroup.events")).get("frozen") == int(frozen)):
            raise CgroupFault(f"The processes of {path} did not stop within 5 s.", "Try again.")

    def frozen(self, path: str) -> bool:
        """See Cgroups.frozen."""
        return files.flat(files.read(self.root / path / "cgroup.events")).get("frozen") == 1

    def kill(self, path: str) -> None:
        """See Cgroups.kill: cgroup.kill (5.14), before it a loop of signals."""
        folder = self.root / path
        with contextlib.suppress(FileNotFoundError):
            files.write(folder / "cgroup.kill", 1)
        files.until(lambda: not files.signal_all(folder))

    def pids(self, path: str) -> list[int]:
        """See Cgroups.pids."""
        return files.pids(self.root / path)

    def sample(self, path: str) -> Sample:
        """See Cgroups.sample."""
        folder = self.root / path
        cpu = files.flat((folder / "cpu.stat").read_text())
        memory = files.flat(files.read(folder / "memory.stat"))
        usage = files.number(files.read(folder / "memory.current"))
        marks, by_device = _marks(folder, cpu), self.devices(path)
        io = files.total(by_device)
        return Sample(
            cpu_ns=marks.cpu_ns,
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            throttled_periods=marks.throttled_periods,
            periods=cpu.get("nr_periods", 0),
            memory_bytes=max(0, usage - memory.get("inactive_file", 0)),
            cache_bytes=memory.get("file", 0),
            memory_limit_bytes=files.number(files.read(folder / "memory.max")),
            pids=marks.pids,
            pids_limit=marks.pids_limit,
            read_bytes=io.read_bytes,
            write_bytes=io.write_bytes,
            read_ops=io.read_ops,
            write_ops=io.write_ops,
            oom_kills=self.oom_kills(path),
            memory_held_bytes=max(0, usage - sum(memory.get(name, 0) for name in _DROPPABLE)),
            memory_charged_bytes=usage,
            marks=marks,
            devices=by_device,
        )

    def marks(self, path: str) -> Marks:
        """See Cgroups.marks."""
        folder = self.root / path
        return _marks(folder, files.flat((folder / "cpu.stat").read_text()))

    def devices(self, path: str) -> Mapping[str, Moved]:
        """See Cgroups.devices: io.stat."""
        found = {}
        for line in files.read(self.root / path / "io.stat").splitlines():
            device, *pairs = line.split()
            values = {key: int(value) for key, _, value in (p.partition("=") for p in pairs) if value.isdigit()}
            found[device] = Moved(*(values.get(key, 0) for key in ("rbytes", "wbytes", "rios", "wios")))
        return found

    def kills_whole(self, path: str) -> bool:
        """See Cgroups.kills_whole."""
        return files.read(self.root / path / "memory.oom.group").strip() == "1"

    def oom_kills(self, path: str) -> int:
        """See Cgroups.oom_kills."""
        return files.flat(files.read(self.root / path / "memory.events")).get("oom_kill", 0)

    def remove(self, path: str) -> None:
        """See Cgroups.remove."""
        if not files.remove_tree(self.root / path, _reclaim):
            raise CgroupFault(f"The group {path} still holds processes.", "End them, then remove again.")

    def list(self, path: str) -> Sequence[str]:
        """See Cgroups.list."""
        top = self.root / path
        return [str(group.relative_to(self.root)) for group in files.below(top) if group != top]

    def dying(self) -> int:
        """See Cgroups.dying. Kernels before 6.12 do not count memory's apart."""
        stat = files.flat(files.read(self.root / "cgroup.stat"))
        return stat.get("nr_dying_subsys_memory", stat.get("nr_dying_descendants", 0))


def _reclaim(group: Path) -> None:
    """Give page cache back (memory.reclaim, 5.19): it would keep the removed group as a dying one."""
    stat = files.flat(files.read(group / "memory.stat"))
    if cached := stat.get("active_file", 0) + stat.get("inactive_file", 0):
        with contextlib.suppress(OSError):  # EAGAIN: not all of it; ENOENT: an older kernel
            files.write(group / "memory.reclaim", cached)


def _set_cpu(folder: Path, r: Resources) -> None:
    for name, cpus in (("cpuset.cpus", r.cpuset_cpus), ("cpuset.mems", r.cpuset_mems)):
        if cpus:
            files.write(folder / name, cpus)
    if r.cpu_quota_us is not None:
        quota = "max" if r.cpu_quota_us <= 0 else r.cpu_quota_us
        files.write(folder / "cpu.max", f"{quota} {r.cpu_period_us}")
    if r.cpu_weight is not None:
        files.write(folder / "cpu.weight", min(10_000, max(1, r.cpu_weight)))


def _set_io(folder: Path, r: Resources) -> None:
    for rate in r.io:
        names = (
            ("rbps", rate.read_bps),
            ("wbps", rate.write_bps),
            ("riops", rate.read_iops),
            ("wiops", rate.write_iops),
        )
        limits = " ".join(f"{name}={value or 'max'}" for name, value in names)
        files.write(folder / "io.max", f"{rate.major}:{rate.minor} {limits}")


def _refuse_below_use(folder: Path, limit: int, swap: int | None) -> None:
    """A memory.max below what is in use is not refused by the kernel: it kills. So it is refused here, as v1 does."""
    used = files.number(files.read(folder / "memory.current"))
    if used <= limit:
        return
    stat = files.flat(files.read(folder / "memory.stat"))
    used -= sum(stat.get(name, 0) for name in _DROPPABLE)
    if swap != 0:
        free = files.swap_free_bytes()
        used -= free if swap is None or swap < 0 else min(swap, free)
    if used > limit:
        raise below_use("memory", used, limit)


def _marks(folder: Path, cpu: Mapping[str, int]) -> Marks:
    """The `.local` files leave out what groups below met (memory since 5.2, pids since 6.11)."""
    memory = files.flat(files.read(folder / "memory.events.local"))
    refused = files.read(folder / "pids.events.local") or files.read(folder / "pids.events")
    at_high = memory.get("high", 0)
    return Marks(
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        throttled_periods=cpu.get("nr_throttled", 0),
        pids=files.number(files.read(folder / "pids.current")),
        pids_limit=files.number(files.read(folder / "pids.max")),
        forks_refused=files.flat(refused).get("max", 0),
        memory_at_max=memory.get("max", 0),
        memory_at_high=at_high,
        memory_high_bytes=files.number(files.read(folder / "memory.high")) if at_high else 0,
        swap_at_max=files.flat(files.read(folder / "memory.swap.events")).get("max", 0),
    )
