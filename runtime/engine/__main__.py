"""`python -m runtime.engine`: the daemon's command line."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from runtime.engine.config import from_arguments
from runtime.errors import RuntimeFault


def main(argv: list[str]) -> int:
    """Run the engine; a refusal is one sentence on stderr and exit status 1."""
    debug = "--debug" in argv
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        config = from_arguments(argv)
        if os.geteuid() != 0:
            raise RuntimeFault("The engine needs root: it makes namespaces, mounts and links.", "Run it as root.")
        from runtime.engine import daemon  # after the checks: a refusal needs no aiohttp

        held = daemon.lock(config)
        try:
            asyncio.run(daemon.run(config), debug=debug)
        finally:
            os.close(held)
    except RuntimeFault as fault:
        if debug:
            raise
        print(f"moorage-engine: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
