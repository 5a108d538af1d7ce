"""`make bench`: prints the rows of the budget table as Markdown; `python -m bench GROUP…` measures some of them."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    cycle_rows,
    engine_rows,
    image_rows,
    ingress_rows,
    log_rows,
    oci_rows,
    platform_rows,
    push_rows,
    scale_rows,
    store_rows,
)
from bench.rows import Row, table
from scripts import trial

# In this order: the first reads a platform at rest, the last leaves it with a thousand apps.
ON_A_PLATFORM: dict[str, Callable[[trial.Trial, Path], Iterator[Row]]] = {
    "deploys": platform_rows.rows,
    "push": push_rows.rows,
    "ingress": ingress_rows.rows,
    "log": log_rows.rows,
    "list": scale_rows.list_rows,
    "hundred": scale_rows.hundred_rows,
}
RUNTIME = "runtime"  # what the runtime alone is measured by: parts of others, so only when named
GROUPS = ("engine", "images", "cycles", "oci", *ON_A_PLATFORM, "second-up")
LONG = ("store",)  # measured when named: twenty minutes
NAMED = (*GROUPS, *LONG, RUNTIME)


def measured(groups: list[str]) -> Iterator[Row]:
    """The rows of these groups."""
    if RUNTIME in groups:
        yield from engine_rows.runtime_rows()
        yield from oci_rows.rows()
        yield from cycle_rows.rows()
    if "engine" in groups:
        yield from engine_rows.rows()
    if "images" in groups:
        yield from image_rows.rows()
    if "cycles" in groups:
        yield from cycle_rows.rows()
    if "oci" in groups:
        yield from oci_rows.rows()
    if chosen := [rows for name, rows in ON_A_PLATFORM.items() if name in groups]:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, trial.platform() as running:
            for rows in chosen:
                yield from rows(running, Path(folder))
    if "second-up" in groups:
        yield platform_rows.second_up()
    if "store" in groups:
        yield from store_rows.rows()


def main(argv: list[str]) -> int:
    """Exit status 1 when a budget is not kept, 2 for a group that does not exist."""
    if unknown := [name for name in argv if name not in NAMED]:
        print(f"bench: there is no group {unknown[0]!r}: give some of {', '.join(NAMED)}.", file=sys.stderr)
        return 2
    found: list[Row] = []
    for row in measured(argv or list(GROUPS)):
        print(f"{row.name}: {row.value:.4g} {row.unit}", file=sys.stderr, flush=True)
        found.append(row)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}\n")
    print(table(found))
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
