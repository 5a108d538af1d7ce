"""Many deploys of a changing image on a small store: it never fills, what can be rolled back to is whole, nobody tidies by hand.

`python -m bench store` is the whole of it: 1,000 deploys on 5 GB, some 20 minutes. `MOORAGE_BENCH_DEPLOYS` and
`MOORAGE_BENCH_STORE_MB` make it smaller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.images import write
from bench.rows import Row
from scripts.demo_image import Contents, ballast_layer
from scripts.trial import Trial, down, free_port, up

DEPLOYS = int(os.environ.get("MOORAGE_BENCH_DEPLOYS", "1000"))
STORE_MB = int(os.environ.get("MOORAGE_BENCH_STORE_MB", "5120"))
LAYER_MB = int(os.environ.get("MOORAGE_BENCH_LAYER_MB", "5"))
BELOW_MB = 50
PLAN = {"slug": "tiny", "cpu_millicores": 500, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20, "pids": 64}
RESERVE = 0.05


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own in a sparse file."""
    with tempfile.TemporaryDirectory(prefix="moorage-store-", dir="/var/tmp") as name:
        image, place = Path(name) / "image", Path(name) / "mnt"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


def free_share(disk: Path) -> float:
    """What is free, of 1."""
    found = os.statvfs(disk)
    return found.f_bavail / found.f_blocks


def deploys(trial: Trial, disk: Path, folder: Path) -> tuple[int, float]:
    """Deploy again and again; how many did not go live, and the least that was ever free."""
    failed, least = 0, 1.0
    for number in range(1, DEPLOYS + 1):
        contents = Contents(size_mb=BELOW_MB, layer=ballast_layer(LAYER_MB, number))
        status, answer = trial.deploy("changing", write(folder / "changing.tar", contents), wait_s=120)
        least = min(least, free_share(disk))
        if status != 201:
            failed += 1
            print(f"deploy {number}: {status} {str(answer)[:300]}", file=sys.stderr, flush=True)
        if number % 25 == 0:
            print(f"{number} deploys, {free_share(disk):.0%} free, least {least:.0%}", file=sys.stderr, flush=True)
    return failed, least


def rolled_back(trial: Trial) -> int:
    """Of the releases that are kept, how many of the oldest, the middle and the last but one go live again."""
    releases = [row["number"] for row in trial.call("GET", "/api/v1/apps/changing/releases?limit=50")[1]["items"]]
    chosen = {releases[-1], releases[len(releases) // 2], releases[1]}
    path = "/api/v1/apps/changing/rollback?wait=120"
    return sum(trial.call("POST", path, {"release": number}, timeout_s=150)[0] == 201 for number in sorted(chosen))


def rows() -> Iterator[Row]:
    """The rows, on a platform of its own."""
    with small_disk(STORE_MB) as disk, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        state = disk / "state"
        state.mkdir()
        trial = up(state, free_port())
        try:
            trial.call("POST", "/api/v1/plans", PLAN)
            trial.call("POST", "/api/v1/apps", {"app": "changing", "plan": PLAN["slug"]})
            failed, least = deploys(trial, disk, Path(folder))
            back = rolled_back(trial)
        finally:
            down(trial)
    name = f"{DEPLOYS} deploys of a changing image on a store of {STORE_MB / 1024:.2g} GB"
    yield Row(name=f"{name}: that failed", value=failed, unit="", budget=0)
    yield Row(name=f"{name}: least free", value=100 * least, unit="%", budget=100 * RESERVE, at_least=True)
    yield Row(name=f"{name}: roll backs that worked, of 3", value=back, unit="", budget=3, at_least=True)
