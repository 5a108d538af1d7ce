"""A store on a small file system: what does not fit is not begun, and a disk that is full is a sentence that passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import SCRATCH, Engine, busybox_archive, eventually, running

DISK_MB = 400


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A file system of 400 MB in a file."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-disk-", dir=SCRATCH))
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
def engine(archive: bytes, disk: Path) -> Iterator[Engine]:
    """An engine whose state lies on it."""
    state = disk / "state"
    state.mkdir()
    with running(archive, state) as made:
        yield made


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing is free: somebody else's file takes it all."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk) - (64 << 10))
        try:
            while True:
                file.seek(0, os.SEEK_END)
                file.write(bytes(4096))
                file.flush()
        except OSError:
            pass
    yield
    filler.unlink()


def run(engine: Engine, name: str, size: str, *command: str, code: int | None = 0) -> str:
    return engine.docker(
        "run",
        "-d",
        "--name",
        name,
        "--storage-opt",
        f"size={size}",
        "busybox",
        *(command or ("sleep", "1000")),
        code=code,
    )


def test_a_start_whose_disk_does_not_fit_is_refused_with_the_figures(engine: Engine) -> None:
    run(engine, "one", "120m")
    run(engine, "two", "120m")
    said = run(engine, "three", "120m", code=125)
    assert re.search(
        r"the store has \d+ MB free; \d+ MB of that are promised to running containers and \d+ MB are kept", said
    )
    assert engine.status("three") == "created"
    engine.docker("rm", "-f", "one")
    engine.docker("start", "three")
    assert engine.status("three") == "running"


def test_a_container_that_fills_its_disk_fills_nobody_elses(engine: Engine, disk: Path) -> None:
    run(engine, "greedy", "150m", "sh", "-c", "cat /dev/zero >/full; echo over; sleep 1000")
    eventually(lambda: "over" in engine.docker("logs", "greedy"), "the end of its disk", 60)
    assert free_bytes(disk) > 20 << 20
    said = run(engine, "beside", "64m", "echo", "room")  # what greedy wrote is not counted twice
    assert said
    eventually(lambda: "room" in engine.docker("logs", "beside"), "the neighbour's line")


def test_a_full_disk_is_a_sentence_and_everything_works_again_afterwards(engine: Engine, disk: Path) -> None:
    run(
        engine,
        "lives",
        "16m",
        "sh",
        "-c",
        "while sleep 0.1; do echo tick; done",
    )
    other = busybox_archive("other:latest", Cmd=["true"])
    before = engine.call("GET", "/images/json")[1]
    with full(disk):
        status, said = engine.call("POST", "/images/load?quiet=1", other)
        refused = run(engine, "none", "16m", code=None)
        assert "are kept in reserve" in refused or "No space left" in refused or "full" in refused, refused
        assert engine.status("lives") == "running"
        assert engine.call("GET", "/_ping")[0] == 200
        if status != 200:
            assert "full" in str(said) or "space" in str(said), said
            assert engine.call("GET", "/images/json")[1] == before
    engine.docker("rm", "-f", "none", code=None)
    assert engine.call("POST", "/images/load?quiet=1", other)[0] == 200
    assert engine.docker("run", "--rm", "busybox", "echo", "again").strip() == "again"
    assert engine.status("lives") == "running"
    count = engine.docker("logs", "lives").count("tick")
    eventually(lambda: engine.docker("logs", "lives").count("tick") > count, "lines after the disk has room again")
    code, body = engine.call("POST", "/containers/lives/stop?t=1")
    assert code == 204, body
