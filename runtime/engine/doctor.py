"""`python -m runtime.engine.doctor --state DIR [--json]`: counts what belongs to this state but to no container.

Exit status 0 when nothing is left over, 1 when something is, 2 when it cannot look."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from runtime.engine.config import EngineConfig, short_id
from runtime.engine.leftovers import Found, find
from runtime.errors import RuntimeFault
from runtime.kernel import cgroups


def main(argv: list[str]) -> int:
    """Count, print, and say by the exit status whether anything is left over."""
    p = argparse.ArgumentParser(prog="python -m runtime.engine.doctor", description="Count what the engine left behind")
    p.add_argument("--state", type=Path, required=True, help="the engine's state directory")
    p.add_argument("--run", type=Path, help="directory of its sockets")
    p.add_argument("--json", action="store_true", help="print {kind: [names]}")
    args = p.parse_args(argv)
    state = args.state.resolve()
    config = EngineConfig(state=state, run=args.run or Path("/run/moorage") / short_id(state))
    try:
        found = find(config, cgroups.detect())
    except (OSError, RuntimeFault) as error:
        print(f"moorage-doctor: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found) if args.json else in_words(found))
    return 1 if any(found.values()) else 0


def in_words(found: Found) -> str:
    """One line a kind."""
    lines = [
        f"{len(names):4d} {kind.replace('_', ' ')}" + (f"  {', '.join(names[:5])}" if names else "")
        for kind, names in found.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
