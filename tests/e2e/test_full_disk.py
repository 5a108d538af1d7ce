"""A platform whose disk is full: apps serve, what needs room is refused in a sentence, and afterwards all goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.trial import Trial, down, free_port, up
from tests.e2e.conftest import build_demo

pytestmark = pytest.mark.e2e

DISK_MB = 1400


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A small file system in a file."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-disk-", dir="/var/tmp"))
    image, place = folder / "image", folder / "mnt"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small(disk: Path) -> Iterator[Trial]:
    """A platform that lies on it."""
    state = disk / "state"
    state.mkdir()
    trial = up(state, free_port())
    yield trial
    down(trial)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing is free until the block ends."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        found = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, (found.f_bavail - 16) * found.f_frsize)
        file.seek(0, os.SEEK_END)
        try:
            while file.write(bytes(4096)):
                file.flush()
        except OSError:
            os.ftruncate(file.fileno(), file.tell() // 4096 * 4096)
    try:
        yield
    finally:
        filler.unlink()


def until(look: object, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


def test_a_full_disk_refuses_in_words_and_loses_nothing(small: Trial, disk: Path, tmp_path: Path) -> None:
    first = build_demo(tmp_path / "1.tar", "--tag", "tight:1")
    second = build_demo(tmp_path / "2.tar", "--size-mb", "8", "--seed", "21", "--tag", "tight:2")
    assert small.call("POST", "/api/v1/apps", {"app": "tight", "plan": "nano"})[0] == 201
    status, answer = small.deploy("tight", first)
    assert status == 201, answer
    with full(disk):
        assert small.get("tight")[0] == 200
        status, answer = small.deploy("tight", second)
        assert (status, answer["code"]) == (507, "disk_full"), answer
        assert "disk" in answer["detail"] and answer["hint"]
        status, answer = small.call("GET", "/api/v1/apps/tight")
        assert (status, answer["state"]) == (200, "running"), answer
        assert small.call("POST", "/api/v1/apps/tight/restart")[0] in (202, 507)
        assert small.get("tight")[0] == 200
    until(lambda: small.call("GET", "/api/v1/apps/tight")[1]["state"] == "running")
    status, answer = small.deploy("tight", second)
    assert status == 201, answer
    assert small.get("tight")[0] == 200
    rows = small.call("GET", "/api/v1/apps/tight/releases")[1]["items"]
    assert [row["number"] for row in rows if row["live"]] == [2]
    lines = small.call("GET", "/api/v1/apps/tight/logs")[1]["lines"]
    assert lines
