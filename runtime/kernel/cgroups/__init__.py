"""Control groups of both versions behind one protocol.

A group is named by its path relative to the hierarchy's root ("moorage-1a2b3c4d/team/app/instance"), the same on v1, where
it exists once in each controller's hierarchy, and on v2. Sources: Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault

UNLIMITED = -1
DEFAULT_PERIOD_US = 100_000


class CgroupFault(RuntimeFault):
    """A control group could not be made, limited or removed."""


def lacks(name: str) -> CgroupFault:
    """The kernel has no such file."""
    return CgroupFault(f"This kernel's control groups have no {name}.", "Leave that limit out.")


def below_use(what: str, used_bytes: int, limit_bytes: int) -> CgroupFault:
    """The refusal of a limit on memory that is lower than what cannot be given back."""
    return CgroupFault(
        f"{used_bytes >> 20} MB of {what} are in use, the new limit of {limit_bytes >> 20} MB lies below.",
        "End something in it first, or choose a higher limit.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """Which limits beside those of CPU, memory and processes this kernel has."""

    swap: bool
    io: bool
    cpuset: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRate:
    """Greatest rates of one block device, bytes and operations per second; 0 is no limit."""

    major: int
    minor: int
    read_bps: int = 0
    write_bps: int = 0
    read_iops: int = 0
    write_iops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """One entry of a device list: `kind` is "a", "c" or "b", `major` and `minor` None for any, `access` of "rwm"."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits of one group. None leaves a value as it is, -1 (UNLIMITED) lifts the limit.

    `swap_bytes` is swap alone, beside `memory_bytes`. `cpu_weight` is v2's, 1 to 10,000 with 100 the default, converted for
    v1. `oom_group` lets the kernel end the whole group at once when it is out of memory (v2 only). `files` are further ones of
    this host's version by name, with what is written: CgroupFault where the kernel has none.
    """

    cpu_quota_us: int | None = None
    cpu_period_us: int = DEFAULT_PERIOD_US
    cpu_weight: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_bytes: int | None = None
    memory_low_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    io: tuple[DeviceRate, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    oom_group: bool = False
    files: tuple[tuple[str, str], ...] = ()


class Moved(NamedTuple):
    """What one block device did for a group: bytes and operations, all that were asked for since the group was made."""

    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How often one group met its own limits since it was made; 0 where the kernel does not count it, or has no limit.

    `forks_refused` is counted where the process was (v1, and v2 before 6.11), or where the limit is (later v2).
    `memory_at_max` counts attempts to take more that found the limit, most of which were served by giving cache back.
    """

    cpu_ns: int = 0
    throttled_periods: int = 0
    pids: int = 0
    pids_limit: int = 0
    forks_refused: int = 0
    memory_at_max: int = 0
    memory_at_high: int = 0
    memory_high_bytes: int = 0
    swap_at_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of one group at one moment; limits are 0 where there is none.

    `memory_bytes` is without the page cache that can be dropped at once (inactive_file), as `docker stats` counts it;
    `memory_held_bytes` is without any that can be dropped, `memory_charged_bytes` with all of it, as the limit counts.
    """

    cpu_ns: int
    throttled_ns: int
    throttled_periods: int
    periods: int
    memory_bytes: int
    cache_bytes: int
    memory_limit_bytes: int
    pids: int
    pids_limit: int
    read_bytes: int
    write_bytes: int
    read_ops: int
    write_ops: int
    oom_kills: int
    memory_held_bytes: int = 0
    memory_charged_bytes: int = 0
    marks: Marks = field(default_factory=Marks)
    devices: Mapping[str, Moved] = field(default_factory=dict)  # by "major:minor"


class Cgroups(Protocol):
    """What both versions do. Paths are relative to the root; methods raise OSError, or CgroupFault with a sentence."""

    @property
    def version(self) -> int:
        """1 or 2."""

    def offers(self, path: str) -> Offers:
        """What can be limited in groups like `path`, which need not exist."""

    def create(self, path: str, resources: Resources) -> None:
        """Make the group and its parents, controllers enabled on the way, with these limits. One that exists is set."""

    def attach(self, path: str, pid: int) -> None:
        """Move a process, and what it forks from now on, into the group."""

    def doors(self, path: str) -> list[int]:
        """Descriptors of the group's files through which a single-threaded process moves itself, by writing "0" to each.

        On v1 that spares the RCU grace period (10 ms and more on an idle machine) which moving another process waits for
        (kernel/cgroup/cgroup.c, cgroup_procs_write_start). Who holds them needs no rights of its own: the opener's count.
        """

    def set_limits(self, path: str, resources: Resources) -> None:
        """Change limits of a living group; values that are None stay. What the kernel has no file for is left out (`offers`).

        Memory comes first, for it may be refused: CgroupFault when it is below what is in use. After a failure the limits are
        partly changed.
        """

    def freeze(self, path: str, *, frozen: bool) -> None:
        """Stop or continue all processes of the group and of those below it."""

    def frozen(self, path: str) -> bool:
        """Whether its processes are stopped; False when there is no such group."""

    def kill(self, path: str) -> None:
        """SIGKILL every process of the group and of those below it, frozen ones too."""

    def pids(self, path: str) -> list[int]:
        """Process ids in the group and below it; empty when there is no such group."""

    def sample(self, path: str) -> Sample:
        """Read the counters; raises FileNotFoundError when the group is gone."""

    def marks(self, path: str) -> Marks:
        """What the group alone counts of limits it met: less to read than `sample`, for groups of apps and teams."""

    def devices(self, path: str) -> Mapping[str, Moved]:
        """What each block device did for the group and those below it, by "major:minor"."""

    def kills_whole(self, path: str) -> bool:
        """Whether being out of memory ends all of the group's processes (memory.oom.group of v2)."""

    def oom_kills(self, path: str) -> int:
        """How many processes of the group, or below, the kernel ended for want of memory; 0 when the group is gone."""

    def remove(self, path: str) -> None:
        """Remove the group and all below it; page cache is given back first. Nothing happens when it is gone."""

    def list(self, path: str) -> Sequence[str]:
        """Groups that exist below `path`, children before their parents, in any hierarchy; for finding leftovers."""

    def dying(self) -> int:
        """Memory groups that were removed and still hold pages, on the whole host: the kernel does not say whose they were."""


@cache
def detect(mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups:
    """The hierarchies of this host: v2 when a cgroup2 mount carries the memory controller, else the v1 mounts.

    Raises CgroupFault when neither has cpu, memory and pids.
    """
    from runtime.kernel.cgroups import v1, v2  # they import this module

    return v2.find(mountinfo) or v1.find(mountinfo)
