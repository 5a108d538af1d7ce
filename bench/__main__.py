"""`make bench [engine|platform]`: prints the rows of the budget table that exist so far, as Markdown."""

from __future__ import annotations

import os
import platform
import sys

from bench import engine_rows, platform_rows
from bench.rows import Row, table

GROUPS = {"engine": engine_rows.rows, "platform": platform_rows.rows}


def main(argv: list[str]) -> int:
    """Exit status 1 when a budget is not kept."""
    found: list[Row] = []
    for name, rows in GROUPS.items():
        if argv and name not in argv:
            continue
        for row in rows():
            print(f"{row.name}: {row.value:.4g} {row.unit}", file=sys.stderr, flush=True)
            found.append(row)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}\n")
    print(table(found))
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
