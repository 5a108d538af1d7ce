"""Whether something fits under a team's quota: pure figures, and sentences about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What a team uses, may use or wants more of. The quota's words: a field that is missing there is not limited."""

    apps: int = 0
    instances: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    image_bytes: int = 0
    volumes: int = 0
    volume_bytes: int = 0
    backup_bytes: int = 0

    def __add__(self, other: Sums) -> Sums:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Sums(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One dimension that does not fit."""

    dimension: str
    allowed: int
    used: int
    wanted: int

    @property
    def sentence(self) -> str:
        """ "memory: 15.5 GB of 16 GB used, 2 GB more wanted"."""
        name = self.dimension.removesuffix("_bytes").removesuffix("_millicores").replace("_", " ")
        allowed, used, wanted = (figure(self.dimension, n) for n in (self.allowed, self.used, self.wanted))
        return f"{name}: {used} of {allowed} used, {wanted} more wanted"


def size(count: int) -> str:
    """Bytes as people write them: 512 MB, 1.5 GB (powers of 1024)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1024 or unit == "TB":
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    raise AssertionError


def figure(dimension: str, count: int) -> str:
    """A quota's figure with its unit."""
    if dimension.endswith("_bytes"):
        return size(count)
    return f"{count / 1000:g} cores" if dimension.endswith("_millicores") else str(count)


def fits(quota: Sums, used: Sums, wanted: Sums) -> list[Shortfall]:
    """The dimensions in which `used + wanted` exceeds `quota`; a dimension of which nothing is wanted never counts."""
    found = []
    for field in dataclasses.fields(Sums):
        allowed, have, more = (getattr(sums, field.name) for sums in (quota, used, wanted))
        if more > 0 and have + more > allowed:
            found.append(Shortfall(field.name, allowed, have, more))
    return found


def sentences(shortfalls: Sequence[Shortfall]) -> str:
    """All of them, as one sentence."""
    return "; ".join(shortfall.sentence for shortfall in shortfalls) + "."
