"""`make doctor`: says what this machine lacks, and counts what belongs to this state folder but to no container."""

from __future__ import annotations

import json
import subprocess
import sys

from scripts import preflight, records
from scripts.state import PYTHON, ROOT, SetupError, State


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


def main() -> int:
    """Exit status 1 when something is missing or left over."""
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
    print(f"leftovers {', '.join(left) if left else '0'}")
    return 1 if found or left else 0


if __name__ == "__main__":
    sys.exit(main())
