"""Which storage driver a store gets, and why. So far overlay2 or a sentence."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runtime.storage.driver import Driver, StorageFault
from runtime.storage.overlay2 import DEFAULT_MAX_DISK_BYTES, Overlay2

_FILESYSTEMS, _MOUNTINFO = Path("/proc/filesystems"), Path("/proc/self/mountinfo")
_GOOD_STORES = frozenset({"ext4", "xfs", "btrfs", "f2fs"})  # overlay upper and idmapped mounts, both


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver and the sentence `docker info` shows for it."""

    driver: Driver
    reason: str


def choose(store: Path, *, max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> Choice:
    """The driver for `store`; raises StorageFault when this machine can run none."""
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    if "overlay" not in known_filesystems():
        subprocess.run(["modprobe", "overlay"], check=False, capture_output=True)
    kind = filesystem_of(store)
    refused = refusal(known_filesystems(), kind, store)
    if refused:
        raise StorageFault(refused, "Use a kernel with overlay and put the state directory on ext4, xfs or btrfs.")
    return Choice(
        Overlay2(store, max_disk_bytes=max_disk_bytes), f"overlay2: the kernel has overlay, the store is on {kind}"
    )


def refusal(filesystems: frozenset[str], store_kind: str, store: Path) -> str:
    """Why overlay2 cannot be used, "" when it can."""
    if "overlay" not in filesystems:
        return "The kernel has no overlay file system."
    if store_kind not in _GOOD_STORES:
        return f"The store {store} lies on {store_kind or 'an unknown file system'}, which cannot hold writable layers."
    return ""


def known_filesystems(path: Path = _FILESYSTEMS) -> frozenset[str]:
    """File systems the kernel has now (proc(5), /proc/filesystems)."""
    return frozenset(line.split()[-1] for line in path.read_text().splitlines() if line.strip())


def filesystem_of(folder: Path, mountinfo: Path = _MOUNTINFO) -> str:
    """Type of the file system `folder` lies on, "" when no mount covers it (proc(5), mountinfo)."""
    real = os.path.realpath(folder)
    best, kind = "", ""
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        covers = point == "/" or real == point or real.startswith(point + "/")
        if covers and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
