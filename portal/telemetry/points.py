"""From counters to what people read: rates between two samples. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from worker.protocol import MetricSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one instance used at one moment. Network in bits, disk in bytes per second; a limit of 0 is no limit."""

    instance: str
    at: float
    cpu_millicores: float
    cpu_limit_millicores: int
    throttled_pct: float  # share of the time since the sample before in which the CPU limit held it back
    memory_bytes: int
    memory_limit_bytes: int
    net_in_bps: float
    net_out_bps: float
    disk_read_bps: float
    disk_write_bps: float
    disk_used_bytes: int
    pids: int

    def to_json(self) -> dict[str, Any]:
        """Flat JSON with whole numbers, and `cpu_pct_of_limit` (null without a limit)."""
        data = {key: round(value, 3) if key == "at" else value for key, value in asdict(self).items()}
        limit = self.cpu_limit_millicores
        data["cpu_pct_of_limit"] = round(100 * self.cpu_millicores / limit, 1) if limit else None
        for name in ("cpu_millicores", "throttled_pct"):
            data[name] = round(data[name], 1)
        for name in ("net_in_bps", "net_out_bps", "disk_read_bps", "disk_write_bps"):
            data[name] = round(data[name])
        return data


def _grown(before: int, after: int) -> int:
    """Growth of a counter; one that fell was started anew and has grown from zero since (as Prometheus' rate())."""
    return after - before if after >= before else after


def rate(instance: str, before: MetricSample, after: MetricSample) -> Point | None:
    """The point between two samples of one instance; None when no time passed between them."""
    passed_s = after.at - before.at
    if passed_s <= 0:
        return None

    def per_second(name: str) -> float:
        return _grown(getattr(before, name), getattr(after, name)) / passed_s

    return Point(
        instance=instance,
        at=after.at,
        cpu_millicores=per_second("cpu_ns") / 1e6,
        cpu_limit_millicores=after.cpu_limit_millicores,
        throttled_pct=min(100.0, per_second("throttled_ns") / 1e7),
        memory_bytes=after.memory_bytes,
        memory_limit_bytes=after.memory_limit_bytes,
        net_in_bps=8 * per_second("net_in_total"),
        net_out_bps=8 * per_second("net_out_total"),
        disk_read_bps=per_second("disk_read_total"),
        disk_write_bps=per_second("disk_write_total"),
        disk_used_bytes=after.disk_used_bytes,
        pids=after.pids,
    )


def points(instance: str, samples: Iterable[MetricSample]) -> list[Point]:
    """Rates between each two neighbours, oldest first."""
    found: list[Point] = []
    before: MetricSample | None = None
    for sample in samples:
        if before is not None and (point := rate(instance, before, sample)) is not None:
            found.append(point)
        before = sample
    return found


def thinned[T](samples: Sequence[T], most: int) -> list[T]:
    """At most `most` + 1 samples spread evenly, the newest always kept.

    Counters make this exact: the rate between two kept samples is the true average over all that lay between them.
    """
    if len(samples) <= most + 1:
        return list(samples)
    step = (len(samples) - 1) / most
    return [samples[round(index * step)] for index in range(most + 1)]
