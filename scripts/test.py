"""`make test`: lint, then every test: pure ones in parallel, those that need root and the whole platform one after another.

Groups run one after another: two cores are soon full, and root tests share the machine's network and cgroups.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from scripts import preflight
from scripts.state import PYTHON, ROOT, State

GROUPS = (
    ("lint", ["-m", "scripts.lint"]),
    ("unit", ["-m", "pytest", "-n", "2", "-m", "not root and not e2e", "tests"]),
    ("root", ["-m", "pytest", "-m", "root and not e2e", "tests"]),
    (
        "vm",
        ["scripts/vm.py", "--install", "--", str(PYTHON), "-m", "pytest", "-m", "root and vm", "tests/runtime/root"],
    ),
    ("e2e", ["-m", "pytest", "-m", "e2e", "tests"]),
)


def main(argv: list[str]) -> int:
    """Run the groups named in argv, or all; exit status 1 when one failed or ran nothing."""
    lacking = [
        sentence
        for check in (preflight.root, preflight.overlay, preflight.cgroups)
        if (sentence := check(State.from_environment()))
    ]
    if lacking:
        print("\n".join(lacking), file=sys.stderr)
        return 1
    failed = []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name, arguments in GROUPS:
        if argv and name not in argv:
            continue
        started = time.monotonic()
        status = subprocess.run([str(PYTHON), *arguments], cwd=ROOT, env=environment, check=False).returncode
        print(
            f"=== {name}: {'passed' if status == 0 else f'failed ({status})'} in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if status:
            failed.append(name)
    print("make test: " + ("all passed" if not failed else "failed: " + ", ".join(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
