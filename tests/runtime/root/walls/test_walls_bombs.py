"""Filling what all share: memory by /dev/shm, inodes, processes and threads, the log; and where a core dump goes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.oci.requests import LogOptions
from runtime.oci.spec import Rlimit, Spec
from runtime.oci.spec_resources import LinuxResources, Memory, Pids
from tests.runtime.root.oci.conftest import Room, room, store
from tests.runtime.root.oci.test_limits import image_plan
from tests.runtime.root.walls.conftest import ALL, COMMAND, Yard, outcomes

__all__ = ["room", "store"]  # fixtures

MB = 1 << 20
LINES = "yes a-line-of-the-log | dd bs=64k count=64 iflag=fullblock 2>/dev/null"  # 4 MB


def limited(spec: Spec, limits: LinuxResources | None) -> Spec:
    """Beside the default device list; None leaves it without."""
    if limits is None:
        return spec
    resources = replace(limits, devices=spec.linux.resources.devices)
    return replace(spec, linux=replace(spec.linux, resources=resources))


def sized(spec: Spec, size: str) -> Spec:
    """With /dev and /dev/shm of that size, "" for none."""

    def options(given: tuple[str, ...]) -> tuple[str, ...]:
        kept = tuple(word for word in given if not word.startswith("size="))
        return (*kept, f"size={size}") if size else kept

    mounts = tuple(
        replace(m, options=options(m.options)) if m.destination in ("/dev", "/dev/shm") else m for m in spec.mounts
    )
    return replace(spec, mounts=mounts)


def tried(yard: Yard, spec: Spec, name: str) -> str:
    """How the one attack went."""
    code, said = yard.run(spec)
    assert code == 0, said
    return outcomes(said, [name])[name]


@pytest.mark.parametrize(("size", "expected"), [("1m", "ENOSPC"), ("", "through")], ids=["held", "without"])
def test_shared_memory_is_full_at_its_size(yard: Yard, size: str, expected: str) -> None:
    assert tried(yard, sized(yard.attacking(["fill_shared_memory"]), size), "fill_shared_memory") == expected


@pytest.mark.parametrize(("off", "expected"), [(False, "ENOSPC"), (True, "through")], ids=["held", "without"])
def test_dev_is_full_at_64_mb(yard: Yard, off: bool, expected: str) -> None:
    spec = yard.attacking(["fill_dev"])
    assert tried(yard, sized(spec, "") if off else spec, "fill_dev") == expected


@pytest.mark.parametrize("held", [True, False], ids=["held", "without"])
def test_files_without_content_count_as_memory(yard: Yard, held: bool) -> None:
    """An inode of a tmpfs is a kilobyte of the kernel's; what makes too many is ended by its own limit."""
    limits = LinuxResources(memory=Memory(limit=24 * MB, swap=24 * MB)) if held else None
    spec = limited(yard.attacking(["make_many_files"], folder="/dev/shm", count=60_000), limits)
    code, said = yard.run(spec)
    assert ("make_many_files through" in said) != held, (code, said)


@pytest.mark.parametrize("held", [True, False], ids=["held", "without"])
async def test_files_of_a_sized_layer_take_no_inodes_of_the_store(room: Room, held: bool) -> None:
    plan = image_plan(room, 24 * MB) if held else None
    before = os.statvfs(room.store).f_ffree
    bundle = room.bundle("sh", "-c", "mkdir /many; i=0; while [ $i -lt 3000 ]; do : >/many/$i || break; i=$((i+1)); done; sync", plan=plan)  # fmt: skip
    assert (await (await room.start(bundle)).wait()).code == 0
    taken = before - os.statvfs(room.store).f_ffree
    assert (taken < 1000) == held, taken


@pytest.mark.parametrize(("pids", "expected"), [(16, "EAGAIN"), (0, "through")], ids=["held", "without"])
def test_processes_and_threads_stop_at_their_limit(yard: Yard, pids: int, expected: str) -> None:
    names = ["fork_bomb", "thread_bomb"]
    limits = LinuxResources(pids=Pids(limit=pids)) if pids else None
    code, said = yard.run(limited(yard.attacking(names), limits))
    assert (code, outcomes(said, names)) == (0, dict.fromkeys(names, expected))


@pytest.mark.parametrize("held", [True, False], ids=["held", "without"])
async def test_a_log_takes_no_more_than_its_bytes(room: Room, held: bool) -> None:
    log = LogOptions(file_bytes=128 << 10, total_bytes=512 << 10) if held else LogOptions()
    bundle = room.bundle("sh", "-c", LINES)
    assert (await (await room.start(bundle, log=log)).wait()).code == 0
    size = sum(path.stat().st_size for path in (bundle / "log").iterdir())
    assert (size <= 1 << 20) == held, size


@pytest.mark.parametrize("held", [True, False], ids=["held", "without"])
async def test_a_log_takes_no_more_than_its_rate(room: Room, held: bool) -> None:
    """The program waits; nobody else does."""
    log = LogOptions(rate_bps=64 << 10) if held else LogOptions()
    bundle = room.bundle("sh", "-c", LINES)
    launched = await room.start(bundle, log=log)
    waiting = asyncio.ensure_future(launched.wait())
    done, _ = await asyncio.wait([waiting], timeout=2 if held else 20)
    assert bool(done) != held
    room.cgroups.kill(room.group(bundle))
    await waiting


@pytest.mark.parametrize(("limit", "expected"), [(0, "empty"), (-1, "through")], ids=["limit of 0", "no limit"])
def test_a_core_dump_stays_in_the_container(yard: Yard, limit: int, expected: str) -> None:
    """And there is none where the limit is 0. A pattern that is a pipe would be the host's program, whatever the limit."""
    if not Path("/proc/sys/kernel/core_pattern").read_text().startswith("core"):
        expected = "empty"  # it goes to a program or a folder of the host's
    for walls in (ALL, COMMAND):
        spec = yard.attacking(["dump_core"], walls)
        core = Rlimit(type="RLIMIT_CORE", soft=limit, hard=limit)
        assert tried(yard, replace(spec, process=replace(spec.process, rlimits=(core,))), "dump_core") == expected
    assert [path for folder in (Path.cwd(), yard.folder, Path("/tmp")) for path in folder.glob("core.*")] == []
