"""How answers are shown: tables and sentences for people, JSON for programs. Sizes as the portal says them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
STATES = {"live": "green", "running": "green", "failed": "red", "degraded": "yellow", "deploying": "yellow"}


def as_json(value: Any) -> None:
    """One document on standard output."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Rows below their names, or a sentence when there are none."""
    if not rows:
        out.print(empty, markup=False)
        return
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_coloured(text) for text in row))
    out.print(made)


def _coloured(text: str) -> str:
    from rich.markup import escape

    colour = STATES.get(text)
    return f"[{colour}]{text}[/]" if colour else escape(text)


def size(count: float) -> str:
    """512 MB, 1.5 GB (powers of 1024)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TB"


def when(text: str | None) -> str:
    """A time of the API to the second."""
    return (text or "").partition(".")[0].replace("T", " ").removesuffix("Z")
