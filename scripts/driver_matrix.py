"""`make driver-matrix`: run the suite that every storage driver has to pass, and write what it found into docs/storage.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from scripts.state import PYTHON, ROOT

type Results = Mapping[str, Mapping[str, str]]

SUITE = "tests/runtime/root/storage/test_drivers.py"
DOCUMENT = ROOT / "docs" / "storage.md"
PREFIX = "driver-matrix: "  # of the line that the suite prints
BEGIN, END = "<!-- written by make driver-matrix -->\n", "<!-- end -->\n"
ABSENT = "not run"


def results(output: str) -> dict[str, dict[str, str]]:
    """What the suite printed: by row, by driver."""
    line = next((line for line in output.splitlines() if line.startswith(PREFIX)), PREFIX + "{}")
    found: dict[str, dict[str, str]] = json.loads(line.removeprefix(PREFIX))
    return found


def table(found: Results, columns: Sequence[str]) -> str:
    """The table as Markdown; rows in the suite's order."""
    lines = [f"| | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    for row, cells in found.items():
        lines.append(f"| {row} | {' | '.join(cells.get(column, ABSENT) for column in columns)} |")
    return "\n".join(lines) + "\n"


def parsed(document: str) -> dict[str, dict[str, str]]:
    """The table that stands in a document; `table` is the inverse."""
    lines = document.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = rows[0][1:] if rows else []
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[2:]}


def written(document: str, text: str) -> str:
    """The document with the table in its place."""
    head, _, rest = document.partition(BEGIN)
    return head + BEGIN + text + END + rest.partition(END)[2]


def main() -> int:
    """Run, write; exit status 1 when a driver failed, with what did in the table."""
    command = [str(PYTHON), "-m", "pytest", "-q", SUITE]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DRIVER_MATRIX": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    found = results(done.stdout)
    if not found:
        print("The suite told nothing: docs/storage.md stays as it is.", file=sys.stderr)
        return 1
    columns = list(dict.fromkeys(column for cells in found.values() for column in cells))
    DOCUMENT.write_text(written(DOCUMENT.read_text(), table(found, columns)))
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
