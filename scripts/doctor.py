"""`make doctor`: says what this machine lacks, and counts what belongs to this state folder but to no container."""

from __future__ import annotations

import json
import subprocess
import sys

from runtime.errors import RuntimeFault
from runtime.kernel import cgroups
from scripts import preflight, records
from scripts.state import PYTHON, ROOT, SetupError, State

DYING_MANY = 1000


def leftovers(state: State) -> list[str]:
    """Everything the engine's own count finds, as `N kind`; empty when nothing leaked."""
    if not (state.folder / "engine").exists():
        return []
    done = subprocess.run(
        [str(PYTHON), "-m", "runtime.engine.doctor", "--state", str(state.folder), "--json"],
        cwd=ROOT, env=state.plain_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        counts: dict[str, list[str]] = json.loads(done.stdout)
    except ValueError:
        raise SetupError(f"the engine's count failed: {done.stderr.strip()[-300:]}") from None
    return [
        f"{len(names)} {kind} ({', '.join(map(str, names[:3]))}{', …' if len(names) > 3 else ''})"
        for kind, names in counts.items()
        if names
    ]


def dying() -> int:
    """Removed memory groups that the kernel still keeps, of the whole machine; 0 where it has no such groups at all."""
    try:
        return cgroups.detect().dying()
    except RuntimeFault:
        return 0  # `preflight.cgroups` says so


def dying_in_words(count: int) -> list[str]:
    """They are told and no leftover: the kernel names no owner, nobody can remove one, and it goes when its pages go."""
    lines = [f"dying     {count} removed memory groups of this machine, whoever's, still hold pages"]
    if count > DYING_MANY:
        lines.insert(
            0,
            f"warning   {count} dying memory groups are more than {DYING_MANY} and cost the kernel memory: "
            "`sync; echo 3 >/proc/sys/vm/drop_caches` ends those that hold page cache alone.",
        )
    return lines


def main() -> int:
    """Exit status 1 when something is missing or left over; dying groups change nothing in it."""
    try:
        state = State.from_environment()
        found = preflight.problems(state)
        left = leftovers(state)
    except SetupError as error:
        print(f"moorage: {error}", file=sys.stderr)
        return 1
    running = [name for name in ("up", "engine", "haproxy") if records.read(state.records / f"{name}.json") is not None]
    print(f"state     {state.folder} ({state.short})")
    print(f"running   {', '.join(running) or 'nothing'}")
    for sentence in found:
        print(f"missing   {sentence}")
    for sentence in preflight.warnings(state):
        print(f"warning   {sentence}")
    print("\n".join(dying_in_words(dying())))
    print(f"leftovers {', '.join(left) if left else '0'}")
    return 1 if found or left else 0


if __name__ == "__main__":
    sys.exit(main())
