"""Limits, held by the kernel and seen from inside."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from dataclasses import replace

import pytest

from runtime.kernel import loop
from runtime.kernel.cgroups import Resources
from runtime.oci.spec_resources import BlockIO, Cpu, LinuxResources, Memory, Pids, ThrottleDevice
from runtime.storage.driver import RootPlan
from tests.runtime.root.oci.conftest import Room, output, until

pytestmark = pytest.mark.root

MB = 1 << 20
HOG = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"


async def test_a_memory_hog_is_killed_and_the_record_says_with_which_figure(room: Room) -> None:
    bundle = room.bundle("sh", "-c", HOG)
    room.limit(bundle, LinuxResources(memory=Memory(limit=32 * MB, swap=32 * MB)))
    record = await (await room.start(bundle)).wait()
    assert record.code == 137
    assert record.oom_killed
    assert record.memory_limit_bytes == 32 * MB
    assert "32 MB" in record.reason


async def test_a_fork_bomb_stops_at_the_pid_limit(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "for i in $(seq 40); do sleep 30 & done; echo done; wait")
    room.limit(bundle, LinuxResources(pids=Pids(limit=16)))
    launched = await room.start(bundle)
    await until(lambda: "an't fork" in (bundle / "log/current").read_text())
    assert len(room.cgroups.pids(room.group(bundle))) <= 16
    room.cgroups.kill(room.group(bundle))
    await launched.wait()


async def test_a_cpu_hog_stays_within_a_tenth_of_its_share(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "while true; do :; done")
    room.limit(bundle, LinuxResources(cpu=Cpu(quota=20_000, period=100_000)))
    launched = await room.start(bundle)
    group = room.group(bundle)
    await asyncio.sleep(0.3)  # past the burst of the start
    before, began = room.cgroups.sample(group), time.monotonic()
    await asyncio.sleep(2)
    after, took = room.cgroups.sample(group), time.monotonic() - began
    share = (after.cpu_ns - before.cpu_ns) / 1e9 / took
    assert share < 0.22
    assert after.throttled_periods > before.throttled_periods
    room.cgroups.kill(group)
    await launched.wait()


async def test_limits_change_on_a_running_container(room: Room) -> None:
    bundle = room.bundle("sleep", "60")
    room.limit(bundle, LinuxResources(memory=Memory(limit=64 * MB, swap=64 * MB), pids=Pids(limit=16)))
    launched = await room.start(bundle)
    group = room.group(bundle)
    for size in (128 * MB, 32 * MB):
        room.cgroups.set_limits(group, Resources(memory_bytes=size, swap_bytes=0, pids=20, cpu_quota_us=50_000))
        sample = room.cgroups.sample(group)
        assert (sample.memory_limit_bytes, sample.pids_limit) == (size, 20)
    room.cgroups.freeze(group, frozen=True)
    room.cgroups.freeze(group, frozen=False)
    room.cgroups.kill(group)
    assert (await launched.wait()).code == 137


async def test_a_teams_limit_holds_its_instances_together(room: Room) -> None:
    room.cgroups.create(f"{room.top}/team", Resources(memory_bytes=48 * MB, swap_bytes=0))
    bundle = room.bundle("sh", "-c", HOG)
    record = await (await room.start(bundle)).wait()
    assert record.oom_killed
    assert record.code == 137


async def test_a_full_disk_gives_enospc_within_two_percent_and_grows_live(room: Room) -> None:
    size = 24 * MB
    plan = image_plan(room, size)
    script = "dd if=/dev/zero of=/f bs=64k 2>&1 | grep -c 'No space'; sync; stat -c %s /f; df -k / | tail -1; cat"
    bundle = room.bundle("sh", "-c", script, plan=plan)
    launched = await room.launch(bundle, stdin=True)
    assert launched.loop.startswith("loop")
    await launched.release()
    await until(lambda: "overlay" in (bundle / "log/current").read_text())
    said = output(bundle).split()
    assert said[0] == "1"
    assert 0.98 * size <= int(said[1]) <= size
    assert int(said[5]) < 256  # kB available, as df says
    loop.reserve(launched.loop, 0)
    room.cgroups.kill(room.group(bundle))
    await launched.wait()


async def test_the_kernels_own_reserve_takes_nothing_from_the_largest_size(room: Room) -> None:
    plan = replace(image_plan(room, 24 * MB), reserved_clusters=0)
    bundle = room.bundle("sh", "-c", "stat -f -c '%f %a' /", plan=plan)
    await (await room.start(bundle)).wait()
    free, available = output(bundle).split()
    assert free == available


async def test_disk_writes_are_held_to_the_rate_on_the_loop_device_too(room: Room) -> None:
    device = room.store.stat().st_dev
    bundle = room.bundle(
        "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=6 oflag=direct 2>&1", plan=image_plan(room, 32 * MB)
    )
    rate = ThrottleDevice(major=os.major(device), minor=os.minor(device), rate=4 * MB)
    room.limit(bundle, LinuxResources(block_io=BlockIO(throttle_write_bps_device=(rate,))))
    launched = await room.start(bundle)
    record = await launched.wait()
    assert record.code == 0, output(bundle)
    took = (record.finished_ns - record.started_ns) / 1e9
    assert 1.0 < took < 4


def image_plan(room: Room, size: int) -> RootPlan:
    """A sparse ext4 of 64 MB made usable up to `size`, as the storage driver does."""
    folder = room.store / "image"
    (folder / "m").mkdir(parents=True)
    image = folder / "upper.img"
    with image.open("wb") as file:
        file.truncate(64 * MB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    probe = folder / "m"
    subprocess.run(["mount", "-o", "loop", image, probe], check=True)
    try:
        free = os.statvfs(probe)
        clusters = free.f_bfree - size // free.f_bsize  # f_bavail leaves out the default reserve
    finally:
        subprocess.run(["umount", probe], check=True)
    return replace(
        room.plan(f"c{room.made + 1}"),
        upper="image/m/up",
        work="image/m/wk",
        image="image/upper.img",
        mountpoint="image/m",
        reserved_clusters=clusters,
        size_bytes=size,
    )
