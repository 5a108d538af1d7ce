"""Carries out a RootPlan the plain way, without ids mapped: what tests look into."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.kernel import syscalls
from runtime.storage import ext4
from runtime.storage.driver import RootPlan


@contextmanager
def mounted(plan: RootPlan, target: Path) -> Iterator[Path]:
    """The plan's root at `target`; all mounts and loop devices are gone afterwards."""
    target.mkdir(exist_ok=True)
    store = Path(plan.store_root)
    with ExitStack() as undo:
        if plan.image is not None:
            assert plan.mountpoint is not None
            place, options = store / plan.mountpoint, ",".join(("loop", *plan.image_options))
            subprocess.run(["mount", "-t", "ext4", "-o", options, str(store / plan.image), str(place)], check=True)
            undo.callback(syscalls.umount2, place)
            loop = ext4.find_loop(store / plan.image)
            assert loop is not None and ext4.set_reserved(loop, plan.reserved_clusters)
        before = Path.cwd()
        os.chdir(store)
        undo.callback(os.chdir, before)
        parts = (f"lowerdir={':'.join(plan.lowers)}", f"upperdir={plan.upper}", f"workdir={plan.work}", *plan.options)
        syscalls.mount("overlay", target, "overlay", syscalls.MS_RDONLY if plan.readonly else 0, ",".join(parts))
        undo.callback(syscalls.umount2, target)
        yield target


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}" in line]
