"""`make lint`: style, types, import directions, file length, skipped tests and missing migrations; every finding is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from scripts.state import PYTHON, ROOT

LINES_AT_MOST = 400
SKIPS = re.compile(r"\bpytest\.(skip|importorskip|xfail)\b|\bmark\.(skip|skipif|xfail)\b|\bunittest\.skip|\bSkipTest\b")
PYTHON_FOLDERS = ("runtime", "worker", "portal", "cli", "scripts", "tests", "bench")


def tracked(pattern: str) -> list[Path]:
    """Files of the repository that match a git pathspec, untracked ones included."""
    command = ["git", "ls-files", "-co", "--exclude-standard", pattern]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in answer.splitlines() if (ROOT / line).is_file()]


def long_files() -> list[str]:
    """Python files a reader would lose the way in."""
    found = []
    for path in tracked("*.py"):
        lines = len(path.read_text().splitlines())
        if lines > LINES_AT_MOST and "migrations" not in path.parts:
            found.append(
                f"{path.relative_to(ROOT)} has {lines} lines of at most {LINES_AT_MOST}: find the two nouns in it."
            )
    return found


def skips(lines: Iterable[str]) -> list[int]:
    """Numbers of the lines that let a test not run, or fail and pass: one that lacks root or a tool must fail."""
    return [number for number, line in enumerate(lines, 1) if SKIPS.search(line)]


def skipped_tests() -> list[str]:
    """Places in the tests where one is skipped."""
    return [
        f"{path.relative_to(ROOT)}:{number} skips a test: let it fail, and name what it lacks in scripts/packages.tsv."
        for path in tracked("tests/*.py")
        for number in skips(path.read_text().splitlines())
    ]


def commands(state: str) -> list[tuple[str, list[str]]]:
    """Name and command of each outside check."""
    python = str(PYTHON)
    folders = [name for name in PYTHON_FOLDERS if (ROOT / name).exists()]
    return [
        ("ruff check", [python, "-m", "ruff", "check", *folders, "manage.py"]),
        ("ruff format", [python, "-m", "ruff", "format", "--check", "--quiet", *folders, "manage.py"]),
        ("mypy", [python, "-m", "mypy"]),
        ("imports", [python, "-m", "pytest", "-q", "--no-header", "-p", "no:django", "tests/test_imports.py"]),
        ("migrations", [python, "manage.py", "makemigrations", "--check", "--dry-run"]),
    ]


def main() -> int:
    """Exit status 1 when any check found something."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="moorage-lint-") as state:
        environment = os.environ | {"MOORAGE_STATE": state, "MOORAGE_RUN": state, "PYTHONPATH": str(ROOT)}
        for name, command in commands(state):
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                failed.append(name)
                print(f"--- {name}\n{done.stdout}{done.stderr}")
    for name, sentences in (("file length", long_files()), ("skipped tests", skipped_tests())):
        if sentences:
            failed.append(name)
            print(f"--- {name}\n" + "\n".join(sentences))
    print("lint: " + ("clean" if not failed else ", ".join(failed) + " found something"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
