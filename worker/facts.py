"""What this host offers, for placement and the hosts page."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from worker.engine import Engine
from worker.protocol import HostFacts


def host_facts(engine: Engine, state: Path) -> HostFacts:
    """The engine's facts with the size of the file system the state lies on."""
    disk = os.statvfs(state)
    return replace(
        engine.facts(), disk_bytes=disk.f_blocks * disk.f_frsize, disk_free_bytes=disk.f_bavail * disk.f_frsize
    )
