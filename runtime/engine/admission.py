"""Whether the store has room for one more running container.

Writable layers are sparse: what they may still grow is promised, not taken. The promises of all running containers, and a
reserve for everything else that lives on the file system, must fit into what is free: then a tenant that fills its disk
never fills the host's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.engine.core import Core
from runtime.engine.errors import NoRoom
from runtime.engine.sentences import size

RESERVE_SHARE = 0.05
RESERVE_MOST_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, in bytes."""

    total_bytes: int
    free_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What no container is promised."""
        return min(int(self.total_bytes * RESERVE_SHARE), RESERVE_MOST_BYTES)


def disk_of(path: Path) -> Disk:
    """The file system `path` lies on."""
    found = os.statvfs(path)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def check(disk: Disk, promised_bytes: int, wanted_bytes: int) -> None:
    """Raise NoRoom, with the figures, unless `wanted_bytes` more fit beside what is promised. 0 wants no more than the reserve."""
    if promised_bytes + wanted_bytes + disk.reserve_bytes <= disk.free_bytes:
        return
    kept = f"{size(disk.reserve_bytes)} are kept in reserve"
    if wanted_bytes == 0 or disk.free_bytes < disk.reserve_bytes:
        sentence = f"the store has {size(disk.free_bytes)} of {size(disk.total_bytes)} free, and {kept}"
    else:
        sentence = (
            f"the store has {size(disk.free_bytes)} free; {size(promised_bytes)} of that are promised to running containers and "
            f"{kept}: a disk of {size(wanted_bytes)} more does not fit"
        )
    raise NoRoom(f"{sentence}.", "Remove what is not needed, or give containers smaller disks.")


def admit(core: Core, container_id: str, wanted_bytes: int) -> None:
    """Raise NoRoom unless the store has room for this container. What others have written is looked at only when it matters."""
    disk = disk_of(core.config.home)
    limits = {
        other.id: other.record.host.resources.disk_size
        for other in core.registry
        if other.id != container_id and (other.state.is_live or other.lock.locked())  # that is: being started
    }
    if sum(limits.values()) + wanted_bytes + disk.reserve_bytes <= disk.free_bytes:
        return
    own = core.driver.usage(container_id).used_bytes if wanted_bytes else 0
    check(disk, promised(core, limits.items()), max(0, wanted_bytes - own))


def promised(core: Core, limits: Iterable[tuple[str, int]]) -> int:
    """What running containers may still write."""
    return sum(max(0, limit - core.driver.usage(name).used_bytes) for name, limit in limits if limit)
