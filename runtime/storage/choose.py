"""Which storage driver a store gets, and why: the first of ORDER that works here, the one that was asked for, or the one from before."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.kernel.process import write_atomic
from runtime.storage.btrfs import Btrfs
from runtime.storage.driver import Driver, StorageFault
from runtime.storage.fuse_overlayfs import PROGRAM, FuseOverlayfs
from runtime.storage.keeping import DEFAULT_MAX_DISK_BYTES
from runtime.storage.overlay2 import Overlay2
from runtime.storage.vfs import Vfs

ORDER: Final = ("overlay2", "btrfs", "fuse-overlayfs", "vfs")
KINDS: Final[Mapping[str, Callable[..., Driver]]] = {
    "overlay2": Overlay2,
    "btrfs": Btrfs,
    "fuse-overlayfs": FuseOverlayfs,
    "vfs": Vfs,
}
RETIRED: Final = {
    "aufs": "aufs is retired: kernels of distributions have not had it for years, and Docker took it out in 24.0",
}
ABSENT: Final = {name: f"{name} is not among the drivers of this engine" for name in ("devicemapper", "zfs")}
_FILESYSTEMS, _MOUNTINFO = Path("/proc/filesystems"), Path("/proc/self/mountinfo")
_MAPPED_STORES = frozenset({"ext4", "xfs", "btrfs", "f2fs"})  # idmapped mounts, and overlay's upper folders
_NOTE = "driver"  # a file of the store: which driver it has


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver, the sentence `docker info` shows for it, and why each driver before it in ORDER was passed over."""

    driver: Driver
    reason: str
    passed_over: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine offers a store."""

    filesystems: frozenset[str]
    store: Path
    store_kind: str
    has_fuse: bool = False
    maps_tmpfs: bool = False  # Linux 6.3 and later

    @classmethod
    def look(cls, store: Path) -> Here:
        """Look; a module that may be loaded counts."""
        for module in {"overlay", "fuse"} - known_filesystems():
            subprocess.run(["modprobe", "-q", module], check=False, capture_output=True)
        has_fuse = Path("/dev/fuse").exists() and shutil.which(PROGRAM) is not None
        release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
        return cls(known_filesystems(), store, filesystem_of(store), has_fuse, release >= (6, 3))


def refusal(driver: str, here: Here) -> str:
    """Why a driver cannot be used, "" when it can."""
    kind = here.store_kind or "an unknown file system"
    if driver in ABSENT:
        return f"{ABSENT[driver]}."
    if driver not in KINDS:
        return f"There is no storage driver {driver[:40]!r}."
    if driver == "overlay2" and "overlay" not in here.filesystems:
        return "The kernel has no overlay file system."
    if driver == "fuse-overlayfs":
        return "" if here.has_fuse else f"There is no /dev/fuse, or the program {PROGRAM} is not installed."
    if driver == "btrfs" and here.store_kind != "btrfs":
        return f"The store {here.store} lies on {kind}, not on btrfs."
    if here.store_kind not in _MAPPED_STORES and not (here.store_kind == "tmpfs" and here.maps_tmpfs):
        return f"The store {here.store} lies on {kind}, which cannot hold writable layers with a container's ids."
    return ""


def decide(wanted: str, before: str, here: Here) -> tuple[str, str, dict[str, str]]:
    """Name, reason, and what was passed over. `wanted` is "" without a wish, `before` the store's driver until now.

    Raises StorageFault when what is wanted cannot be, or nothing can.
    """
    on = f"the store is on {here.store_kind or 'an unknown file system'}"
    refused = {name: refusal(name, here) for name in ORDER}
    works = [name for name in ORDER if not refused[name]]
    if wanted and wanted not in RETIRED:
        why = refused[wanted] if wanted in refused else refusal(wanted, here)
        if why:
            raise StorageFault(f"The storage driver {wanted[:40]} cannot work here. {why}", _way_out(works))
        return wanted, f"{wanted}: it was asked for, {on}", _before(wanted, refused)
    if not works:
        raise StorageFault(
            f"No storage driver works here. {refused['overlay2']} {refused['vfs']}",
            "Use a kernel with overlay and put the state directory on ext4, xfs or btrfs.",
        )
    name = before if before in works else works[0]
    passed_over = _before(name, refused)
    for gone in (name for name in RETIRED if name == wanted or name in here.filesystems):
        passed_over[gone] = f"{RETIRED[gone]}; {name} is used in its place."
    if wanted:
        return name, f"{name}: {RETIRED[wanted]}; {name} is used in its place, {on}", passed_over
    if name != works[0]:
        return name, f"{name}: the store was made with it, {on}", passed_over
    first = "the kernel has overlay" if name == "overlay2" else "it is the first that works here"
    return name, f"{name}: {first}, {on}", passed_over


def _before(name: str, refused: Mapping[str, str]) -> dict[str, str]:
    """Why those that come first were passed over."""
    return {other: refused[other] for other in ORDER[: ORDER.index(name)] if refused[other]}


def _way_out(works: list[str]) -> str:
    if not works:
        return "Put the state directory on ext4, xfs or btrfs."
    return f"Leave --storage-driver out for {works[0]}, or choose one that works here: {', '.join(works)}."


def choose(store: Path, *, wanted: str = "", max_disk_bytes: int = DEFAULT_MAX_DISK_BYTES) -> Choice:
    """The driver for `store`; raises StorageFault when what is wanted, or everything, cannot work on this machine."""
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    note = store / _NOTE
    before = note.read_text().strip() if note.exists() else ""
    name, reason, passed_over = decide(wanted, before, Here.look(store))
    try:
        driver = KINDS[name](store, max_disk_bytes=max_disk_bytes)
    except OSError as error:
        raise StorageFault(f"The storage driver {name} does not work on {store}: {error}.") from error
    if name != before:
        write_atomic(note, f"{name}\n".encode())
    return Choice(driver, reason, passed_over)


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
