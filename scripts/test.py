"""`make test`: lint, then every test: pure ones and those that need root three at a time, the whole platform's one after another.

Groups run one after another: two cores are soon full. Root tests wait more than they compute, and each has names of its own. The
root tests of the runtime in a guest with unified cgroups are `make test-vm`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts import dealing, preflight
from scripts.state import PYTHON, ROOT, State
from scripts.vm import SHARE as IN_GUEST_SHARE

PYTEST = (str(PYTHON), "-m", "pytest")
GUEST = (str(PYTHON), "scripts/vm.py", "--timeout", "3600", "--share")
IN_GUEST = (*PYTEST, "-m", "root and not host_only", "tests/runtime/root")
GROUPS: dict[str, tuple[str, ...]] = {
    "lint": (str(PYTHON), "-m", "scripts.lint"),
    "unit": (*PYTEST, "-n", "2", "-m", "not root and not e2e", "tests"),
    "root": (*PYTEST, "-n", "3", "--dist", "loadfile", "-m", "root and not e2e", "tests"),
    "vm": IN_GUEST,  # with GUEST before it
    "e2e": (*PYTEST, "-m", "e2e", "tests"),
}
OF_THEIR_OWN = {"vm"}  # run only when named
REQUIRED = (preflight.root, preflight.overlay, preflight.cgroups, preflight.tools_of_tests)  # without one nothing runs
BUDGET_S = 15 * 60  # for all but what is OF_THEIR_OWN
VM_LOG = ROOT / "build/vm-tests.log"
GUESTS = 2  # one for each core: a guest uses little more than one


def run(name: str, environment: dict[str, str]) -> int:
    """Run one group. Returns the exit status."""
    if name == "vm":
        return run_in_guests(environment)
    return subprocess.run(GROUPS[name], cwd=ROOT, env=environment, check=False).returncode


def run_in_guests(environment: dict[str, str]) -> int:
    """Run the group in guests side by side, which deal its tests out among themselves; VM_LOG says where each ran."""
    with contextlib.ExitStack() as stack:
        share = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-vm-share-")))
        started = []
        for number in range(1, GUESTS + 1):
            output = stack.enter_context(tempfile.TemporaryFile())
            own = environment | {"MOORAGE_TEST_SHARE": IN_GUEST_SHARE, "MOORAGE_TEST_GUEST": str(number)}
            command = [*GUEST, str(share), "--", *GROUPS["vm"]]
            guest = subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=output)
            stack.callback(guest.wait)
            stack.callback(guest.terminate)  # where this is interrupted
            started.append((guest, output))
        statuses = []
        for guest, output in started:
            statuses.append(guest.wait())
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
        lines, missed = dealing.summary(share)
    VM_LOG.parent.mkdir(exist_ok=True)
    VM_LOG.write_text("".join(f"{line}\n" for line in lines))
    print(
        f"{VM_LOG.relative_to(ROOT)} lists the tests that ran in the guests; {len(missed)} of those collected did not."
    )
    return max(statuses, key=abs) or int(bool(missed))


def main(argv: list[str]) -> int:
    """Run the groups named in argv, or all that are not OF_THEIR_OWN; exit status 1 when one failed or ran nothing."""
    if unknown := [name for name in argv if name not in GROUPS]:
        print(f"No group is named {', '.join(unknown)}. There are {', '.join(GROUPS)}.", file=sys.stderr)
        return 1
    lacking = [sentence for check in REQUIRED if (sentence := check(State.from_environment()))]
    if lacking:
        print("\n".join(lacking), file=sys.stderr)
        return 1
    seconds, failed = dict[str, float](), list[str]()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name in argv or [name for name in GROUPS if name not in OF_THEIR_OWN]:
        started = time.monotonic()
        status = run(name, environment)
        seconds[name] = time.monotonic() - started
        print(f"=== {name}: {'passed' if status == 0 else f'failed ({status})'} in {seconds[name]:.0f} s", flush=True)
        if status:
            failed.append(name)
    print("\n".join(verdict(seconds, failed)))
    return 1 if failed else 0


def verdict(seconds: Mapping[str, float], failed: Sequence[str]) -> list[str]:
    """The last lines, of how long each group took and which failed. Passing the budget fails nothing: machines differ."""
    total = sum(seconds.values())
    lines = [f"tests: {'failed: ' + ', '.join(failed) if failed else 'all passed'} in {total:.0f} s"]
    budgeted = {name: spent for name, spent in seconds.items() if name not in OF_THEIR_OWN}
    if (spent := sum(budgeted.values())) > BUDGET_S:
        longest = max(budgeted, key=lambda name: budgeted[name])
        lines.insert(
            0,
            f"warning: {spent:.0f} s are more than the {BUDGET_S} s that make test may take, {budgeted[longest]:.0f} s of them "
            f"in {longest}: pytest's --durations=20 names its slowest.",
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
