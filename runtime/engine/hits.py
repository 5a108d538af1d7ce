"""When a limit counts as hit: decided from two looks at a group. Pure.

Counters tell what happened between them; a rule answers with the sentence, or None. `going` says that it was hit just before:
then less is enough, so that one that is hit on and off is one event that is renewed and not many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from runtime.engine import sentences
from runtime.engine.resources import CPU_PERIOD_US, Resources
from runtime.engine.stats import GroupReading, Line, Reading
from runtime.kernel.cgroups import Marks, Moved
from runtime.network.model import Queue
from runtime.storage.driver import Usage

type Level = Literal["instance", "app", "team"]

CPU_WAITED_S = 1.9  # of the last four seconds: a look every two, less what they differ
CPU_SHARE, CPU_SHARE_GOING = 0.5, 0.25
DISK_RATE, DISK_RATE_GOING = 0.95, 0.8
NET_RATE, NET_RATE_GOING = 0.9, 0.75  # links count no headers of what was cut up after them: up to 5 %
MEMORY_NEAR, MEMORY_NEAR_GOING = 0.9, 0.8
MEMORY_FULL = 0.99  # for kernels that do not count
DISK_FULL, DISK_FULL_GOING = 0.98, 0.95
NOTHING = Moved()
NO_DISK = Usage(used_bytes=0, size_bytes=0)
WAYS = (
    ("read_bytes", "disk_read_bps", "Reading from disk", True),
    ("write_bytes", "disk_write_bps", "Writing to disk", True),
    ("read_ops", "disk_read_iops", "Reading from disk", False),
    ("write_ops", "disk_write_iops", "Writing to disk", False),
)


@dataclass(frozen=True, slots=True)
class Processes:
    """The limit on processes that refused one: whose it is, and how many it allows."""

    level: Level
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One group at one moment; memory, disk and lines are of instances only."""

    ns: int
    marks: Marks
    devices: Mapping[str, Moved] = field(default_factory=dict)
    memory_bytes: int = 0  # without cache
    charged_bytes: int = 0  # with it
    oom_kills: int = 0
    disk: Usage = NO_DISK
    lines: tuple[Line, ...] = ()
    fullest: Processes | None = None

    @classmethod
    def of(cls, reading: Reading, processes: Processes) -> Moment:
        """Of an instance."""
        g = reading.group
        return cls(
            ns=reading.ns,
            marks=g.marks,
            devices=g.devices,
            memory_bytes=g.memory_held_bytes,
            charged_bytes=g.memory_charged_bytes,
            oom_kills=g.oom_kills,
            disk=reading.disk,
            lines=reading.lines,
            fullest=processes,
        )

    @classmethod
    def of_group(cls, reading: GroupReading) -> Moment:
        """Of an app or a team."""
        return cls(ns=reading.ns, marks=reading.marks, devices=reading.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One limit that was hit: figures in its own unit. `since_ns` is when it was first told of, if it has lasted since."""

    limit: str
    used: float
    allowed: float
    sentence: str
    level: Level = "instance"
    process: str = ""
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What a rule judges: a group then and now, what it may have, and whether it was at its limit just before."""

    then: Moment
    now: Moment
    allowed: Resources
    level: Level
    going: bool = False

    @property
    def seconds(self) -> float:
        """Between the two moments."""
        return max(1e-3, (self.now.ns - self.then.ns) / 1e9)

    def more(self, name: str) -> int:
        """How much a mark grew."""
        grown: int = getattr(self.now.marks, name) - getattr(self.then.marks, name)
        return grown

    def hit(self, limit: str, used: float, allowed: float, sentence: str) -> Hit:
        """A hit at this level."""
        return Hit(limit=limit, used=used, allowed=allowed, sentence=sentence, level=self.level)


def cpu(look: Look) -> Hit | None:
    """Held back in half of the time: the kernel gives a group's time out in slices, and stops it when one is used up."""
    cores = look.allowed.millicores / 1000
    if not cores:
        return None
    waited_s = look.more("throttled_periods") * (look.allowed.cpu_period_us or CPU_PERIOD_US) / 1e6
    share = min(1.0, waited_s / look.seconds)
    if share < (CPU_SHARE_GOING if look.going else CPU_SHARE) - 0.05:
        return None
    if not look.going and waited_s < CPU_WAITED_S:
        return None
    used = round(look.more("cpu_ns") / look.seconds / 1e6)
    return look.hit("cpu", used, look.allowed.millicores, sentences.cpu(share, look.seconds, cores, look.level))


def pids(look: Look) -> Hit | None:
    """A process or thread was refused."""
    refused = look.more("forks_refused")
    if refused <= 0:
        return None
    at = look.now.fullest or Processes(look.level, look.now.marks.pids_limit)
    text = sentences.pids(at.limit, refused, look.seconds, at.level)
    return Hit(limit="pids", used=at.limit, allowed=at.limit, sentence=text, level=at.level)


def memory(look: Look) -> Hit | None:
    """At its limit without a kill: what is in use beside cache is near it, and what is asked for beside it found no room."""
    used, limit = look.now.memory_bytes, look.allowed.memory
    asked = look.more("memory_at_max") > 0 or look.now.charged_bytes >= limit * MEMORY_FULL
    if not limit or not asked or look.now.oom_kills > look.then.oom_kills:
        return None
    if used < limit * (MEMORY_NEAR_GOING if look.going else MEMORY_NEAR):
        return None
    return look.hit("memory", used, limit, sentences.memory_full(used, limit, look.level))


def memory_high(look: Look) -> Hit | None:
    """Above memory.high (v2), where whoever asks for more is slowed."""
    mark = look.now.marks.memory_high_bytes
    if not mark or look.more("memory_at_high") <= 0:
        return None
    used = max(look.now.memory_bytes, mark)
    return look.hit("memory", used, mark, sentences.memory_high(mark, look.level))


def swap(look: Look) -> Hit | None:
    """All the swap it may have beside its memory is taken."""
    limit = swap_of(look.allowed)
    if limit <= 0 or look.more("swap_at_max") <= 0:
        return None
    return look.hit("swap", limit, limit, sentences.swap(limit, look.allowed.memory, look.level))


def swap_of(allowed: Resources) -> int:
    """Bytes of swap beside the memory; 0 when there is none, or no limit."""
    if not allowed.memory or allowed.memory_swap < 0:
        return 0
    return (allowed.memory_swap or 2 * allowed.memory) - allowed.memory


def disk_rate(look: Look) -> Hit | None:
    """As fast as a device may be used, all the time since the look before: the kernel does not tell who waits for it."""
    found: Hit | None = None
    if not look.allowed.has_disk_rates:
        return None
    nearest = DISK_RATE_GOING if look.going else DISK_RATE
    for device, moved in look.now.devices.items():
        before = look.then.devices.get(device, NOTHING)
        if moved == before:
            continue
        for amount, name, doing, in_bytes in WAYS:
            allowed: int = getattr(look.allowed, name)
            rate = (getattr(moved, amount) - getattr(before, amount)) / look.seconds
            if allowed and rate >= nearest * allowed:
                nearest, rate = rate / allowed, min(rate, allowed)
                text = sentences.disk_rate(doing, rate, allowed, look.seconds, look.level, in_bytes=in_bytes)
                found = look.hit("disk_io", rate, allowed, text)
    return found


def network(look: Look) -> Hit | None:
    """As much as may be sent or received, while packets waited for it or were dropped."""
    found: Hit | None = None
    nearest = NET_RATE_GOING if look.going else NET_RATE
    before = {line.endpoint.id: line for line in look.then.lines}
    for line in look.now.lines:
        then = before.get(line.endpoint.id)
        old, new = then.traffic if then else None, line.traffic
        for doing, allowed, moved, queue, last in (
            ("Receiving", line.endpoint.rate_in_bps, new.rx_bytes - (old.rx_bytes if old else 0), new.incoming,
             old.incoming if old else None),
            ("Sending", line.endpoint.rate_out_bps, new.tx_bytes - (old.tx_bytes if old else 0), line.outgoing,
             then.outgoing if then else None),
        ):  # fmt: skip
            rate = moved * 8 / look.seconds
            if not allowed or rate < nearest * allowed or not queue or not _grew(queue, last):
                continue
            nearest, rate = rate / allowed, min(rate, allowed)
            dropped = queue.drops - (last.drops if last else 0)
            text = sentences.network(doing, rate, allowed, look.seconds, dropped)
            found = look.hit("network", rate, allowed, text)
    return found


def _grew(queue: Queue, last: Queue | None) -> bool:
    return (queue.waits, queue.drops) > ((last.waits, last.drops) if last else (0, 0))


def disk(look: Look) -> Hit | None:
    """The writable layer is full."""
    used, size = look.now.disk.used_bytes, look.now.disk.size_bytes
    if not size or used < size * (DISK_FULL_GOING if look.going else DISK_FULL):
        return None
    return look.hit("disk", used, size, sentences.disk_sentence(used, size))


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and the seconds it looks back."""

    judge: Callable[[Look], Hit | None]
    window_s: float


SHORT_S, LONG_S = 1.5, 3.5  # one look back, and two
RULES: Mapping[str, Rule] = {
    "cpu": Rule(cpu, LONG_S),
    "pids": Rule(pids, SHORT_S),
    "memory": Rule(memory, SHORT_S),
    "memory.high": Rule(memory_high, SHORT_S),
    "swap": Rule(swap, SHORT_S),
    "disk_io": Rule(disk_rate, SHORT_S),
    "network": Rule(network, SHORT_S),
    "disk": Rule(disk, SHORT_S),
}


def fullest(chain: list[tuple[Level, Marks]]) -> Processes:
    """Which limit refused a process, of its group and those above it, innermost first: the one that is used up most.

    The kernel before 6.11, and v1, count the refusal in the process's own group, whichever limit it was.
    """
    level, marks = max(chain, key=lambda one: one[1].pids / one[1].pids_limit if one[1].pids_limit else 0.0)
    return Processes(level, marks.pids_limit)
