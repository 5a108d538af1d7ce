"""`make test`: lint, then every test: pure ones in parallel, those that need root and the whole platform one after another.

Groups run one after another: two cores are soon full, and root tests share the machine's network and cgroups. The root tests
of the runtime in a guest with unified cgroups are `make test-vm`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time

from scripts import preflight
from scripts.state import PYTHON, ROOT, State

PYTEST = (str(PYTHON), "-m", "pytest")
IN_GUEST = (str(PYTHON), "scripts/vm.py", "--", *PYTEST, "-m", "root and vm", "tests/runtime/root")
GROUPS: dict[str, tuple[str, ...]] = {
    "lint": (str(PYTHON), "-m", "scripts.lint"),
    "unit": (*PYTEST, "-n", "2", "-m", "not root and not e2e", "tests"),
    "root": (*PYTEST, "-m", "root and not e2e", "tests"),
    "vm": IN_GUEST,
    "e2e": (*PYTEST, "-m", "e2e", "tests"),
}
OF_THEIR_OWN = {"vm"}  # run only when named
GUESTS = 2  # one for each core: a guest uses little more than one


def run(name: str, environment: dict[str, str]) -> int:
    """Run one group; the VM's tests are dealt out to guests side by side. Returns the exit status."""
    if name != "vm":
        return subprocess.run(GROUPS[name], cwd=ROOT, env=environment, check=False).returncode
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(1, GUESTS + 1):
            output = stack.enter_context(tempfile.TemporaryFile())
            shard = environment | {"MOORAGE_TEST_SHARD": f"{number}/{GUESTS}"}
            started.append((subprocess.Popen(GROUPS[name], cwd=ROOT, env=shard, stdout=output, stderr=output), output))
        statuses = []
        for guest, output in started:
            statuses.append(guest.wait())
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return max(statuses, key=abs)


def main(argv: list[str]) -> int:
    """Run the groups named in argv, or all that are not OF_THEIR_OWN; exit status 1 when one failed or ran nothing."""
    if unknown := [name for name in argv if name not in GROUPS]:
        print(f"No group is named {', '.join(unknown)}. There are {', '.join(GROUPS)}.", file=sys.stderr)
        return 1
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
    for name in argv or [name for name in GROUPS if name not in OF_THEIR_OWN]:
        started = time.monotonic()
        status = run(name, environment)
        print(
            f"=== {name}: {'passed' if status == 0 else f'failed ({status})'} in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if status:
            failed.append(name)
    print("tests: " + ("all passed" if not failed else "failed: " + ", ".join(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
