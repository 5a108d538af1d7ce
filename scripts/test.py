"""`make test`: lint, then every test: pure ones in parallel, those that need root and the whole platform one after another.

Root tests and the platform's share the machine's network and cgroups, and wait more than they compute; so the VM's guests run
beside them, with the priority that disturbs nobody.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import IO

from scripts import preflight
from scripts.state import PYTHON, ROOT, State

PYTEST = (str(PYTHON), "-m", "pytest")
IN_GUEST = (str(PYTHON), "scripts/vm.py", "--", *PYTEST, "-m", "root and vm", "tests/runtime/root")
GROUPS: dict[str, tuple[str, ...]] = {
    "lint": (str(PYTHON), "-m", "scripts.lint"),
    "unit": (*PYTEST, "-n", "2", "-m", "not root and not e2e", "tests"),
    "root": (*PYTEST, "-m", "root and not e2e", "tests"),
    "e2e": (*PYTEST, "-m", "e2e", "tests"),
    "vm": IN_GUEST,
}
FULL = ("lint", "unit")  # which leave nothing of the processors
GUESTS, NICE = 2, 10


class Guests:
    """The VM's tests, dealt out to guests that run beside the other groups, on what those leave of the processors."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        for number in range(1, GUESTS + 1):
            output = tempfile.TemporaryFile()  # noqa: SIM115  closed when it has been read
            shard = environment | {"MOORAGE_TEST_SHARD": f"{number}/{GUESTS}"}
            command = ("nice", "-n", str(NICE), *GROUPS["vm"])
            guest = subprocess.Popen(command, cwd=ROOT, env=shard, stdout=output, stderr=output)
            self._running.append((guest, output))

    def finish(self) -> int:
        """Wait for all, print what they printed; 0 or the exit status of one that failed."""
        statuses = []
        for guest, output in self._running:
            statuses.append(guest.wait())
            with output:
                output.seek(0)
                sys.stdout.buffer.write(output.read())
                sys.stdout.flush()
        return max(statuses, key=abs)


def run(name: str, environment: dict[str, str]) -> int:
    """Run one group; returns the exit status."""
    return subprocess.run(GROUPS[name], cwd=ROOT, env=environment, check=False).returncode


def main(argv: list[str]) -> int:
    """Run the groups named in argv, or all; exit status 1 when one failed or ran nothing."""
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
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    failed, guests, began = [], None, time.monotonic()
    names = [name for name in GROUPS if name in (argv or GROUPS)]
    for name in names:
        if "vm" in names and guests is None and name not in FULL:
            guests, guests_began = Guests(environment), time.monotonic()
        started = time.monotonic()
        if name == "vm":
            assert guests
            status, started = guests.finish(), guests_began
        else:
            status = run(name, environment)
        seconds = time.monotonic() - started
        print(f"=== {name}: {'passed' if status == 0 else f'failed ({status})'} in {seconds:.0f} s", flush=True)
        if status:
            failed.append(name)
    print(
        f"make test: {'all passed' if not failed else 'failed: ' + ', '.join(failed)} in {time.monotonic() - began:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
