"""A measured row beside its budget, and how figures are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of design §9: `value` in `unit`, `peer` the same figure of the peer, `budget` what `judged` may reach.

    `judged` is the ratio value / peer where there is a peer and `ratio` is set, else the value itself.
    """

    name: str
    value: float
    unit: str
    budget: float
    peer: float | None = None
    ratio: bool = False
    at_least: bool = False
    note: str = ""

    @property
    def judged(self) -> float:
        """What the budget is compared with."""
        return self.value / self.peer if self.ratio and self.peer else self.value

    @property
    def holds(self) -> bool:
        """Whether the budget is kept."""
        return self.judged >= self.budget if self.at_least else self.judged <= self.budget


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def table(rows: Sequence[Row]) -> str:
    """Rows as the Markdown table that the README holds."""
    lines = ["| what | here | peer | ratio | budget | |", "|---|---|---|---|---|---|"]
    for row in rows:
        peer = f"{row.peer:.4g} {row.unit}" if row.peer is not None else ""
        ratio = f"{row.value / row.peer:.2f}" if row.peer else ""
        sign = "≥" if row.at_least else "≤"
        unit = "" if row.ratio else f" {row.unit}"
        name = f"{row.name} ({row.note})" if row.note else row.name
        held = "yes" if row.holds else "**no**"
        lines.append(
            f"| {name} | {row.value:.4g} {row.unit} | {peer} | {ratio} | {sign} {row.budget:g}{unit} | {held} |"
        )
    return "\n".join(lines)
