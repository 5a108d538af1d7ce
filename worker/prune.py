"""Carries out what `worker.pruning` decides."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from worker import pruning
from worker.engine import Engine
from worker.memory import Memory

log = logging.getLogger(__name__)


def prune(engine: Engine, memory: Memory, needed: Callable[[], Collection[str]], state: Path) -> list[str]:
    """Remove images nobody needs; ids of those that went. `needed` answers with the digests that are wanted now.

    Raises EngineFault.
    """
    images, now, before = {image.id: image for image in engine.images()}, time.time(), memory.images()
    last = pruning.seen(images.values(), needed(), before, now)
    disk = os.statvfs(state)
    free = disk.f_bavail * disk.f_frsize / max(1, min(disk.f_blocks * disk.f_frsize, pruning.SHARE_OF_BYTES))
    chosen = pruning.removable(images.values(), needed(), last, now, free)
    gone = [
        identity
        for identity in chosen
        if engine.remove_image(identity, lambda image=images[identity]: pruning.needed_by(image, needed()))  # type: ignore[misc]
    ]
    if gone:
        log.info("%d images that nothing here needs were removed.", len(gone))
    kept = {identity: at for identity, at in last.items() if identity not in gone}
    if kept != before:
        memory.keep_images(kept)
    return gone
