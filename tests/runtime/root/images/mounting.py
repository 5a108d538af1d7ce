"""Carries out a RootPlan in a process with a mount namespace of its own, without ids mapped: what tests look into.

Run as a program it mounts, says "ready" and waits for the end of its standard input; its mounts go with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.kernel import mounts, syscalls
from runtime.storage import ext4
from runtime.storage.driver import RootPlan

ROOT = Path(__file__).resolve().parents[4]


@contextmanager
def mounted(plan: RootPlan, target: Path) -> Iterator[Path]:
    """The plan's root as this process can reach it; all mounts and loop devices are gone afterwards."""
    target.mkdir(exist_ok=True)
    command = [sys.executable, "-m", __name__, json.dumps(plan.to_json()), str(target)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        yield Path(f"/proc/{holder.pid}/root{target}")
    finally:
        holder.communicate(timeout=10)
    if plan.image is not None:
        image = Path(plan.store_root, plan.image)
        eventually(lambda: not image.exists() or ext4.find_loop(image) is None)


def eventually(check: Callable[[], bool]) -> None:
    """The kernel unmounts a dead namespace's file systems a moment later and tells nobody."""
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}" in line]


def main() -> None:
    """Mount, say so, wait."""
    plan, target = RootPlan.from_json(json.loads(sys.argv[1])), sys.argv[2]
    os.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    os.chdir(plan.store_root)
    if plan.image is not None:
        assert plan.mountpoint is not None
        options = ",".join(("loop", *plan.image_options))
        subprocess.run(["mount", "-t", "ext4", "-o", options, plan.image, plan.mountpoint], check=True)
        loop = ext4.find_loop(Path(plan.image))
        assert loop is not None and ext4.set_reserved(loop, plan.reserved_clusters)
    parts = (f"lowerdir={':'.join(plan.lowers)}", f"upperdir={plan.upper}", f"workdir={plan.work}", *plan.options)
    syscalls.mount("overlay", target, "overlay", syscalls.MS_RDONLY if plan.readonly else 0, ",".join(parts))
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
