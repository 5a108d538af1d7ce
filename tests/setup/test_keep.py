"""A daemon that must outlive its supervisor is found again, not started twice, and replaced when its code changed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import records
from scripts.state import ROOT

type Keeper = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """Starts keepers of one sleeping daemon; ends whatever is left."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-I",
            "-S",
            str(ROOT / "scripts/keep.py"),
            str(tmp_path / "d.json"),
            code,
            str(tmp_path / "d.log"),
        ]
        started.append(subprocess.Popen([*command, "--", "sleep", "300"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    if (left := records.read(tmp_path / "d.json")) is not None:
        os.kill(left["pid"], signal.SIGKILL)


def wait_for_record(path: Path, other_than: int = 0) -> records.Record:
    """The record of a living daemon, once there is one with another pid."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        record = records.read(path)
        if record is not None and record["pid"] != other_than:
            return record
        time.sleep(0.01)
    raise AssertionError(f"no daemon was recorded in {path}")


def test_a_keeper_that_is_ended_leaves_its_daemon_and_the_next_one_finds_it(keeper: Keeper, tmp_path: Path) -> None:
    first = keeper("one")
    daemon = wait_for_record(tmp_path / "d.json")
    first.send_signal(signal.SIGTERM)
    assert first.wait(5) == 0
    assert records.read(tmp_path / "d.json") == daemon
    second = keeper("one")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    assert records.read(tmp_path / "d.json") == daemon


def test_a_daemon_that_dies_ends_its_keeper_with_an_error(keeper: Keeper, tmp_path: Path) -> None:
    process = keeper("one")
    os.kill(wait_for_record(tmp_path / "d.json")["pid"], signal.SIGKILL)
    assert process.wait(5) == 1
    assert records.read(tmp_path / "d.json") is None


def test_a_daemon_from_other_code_is_replaced(keeper: Keeper, tmp_path: Path) -> None:
    first = keeper("one")
    old = wait_for_record(tmp_path / "d.json")
    first.send_signal(signal.SIGTERM)
    first.wait(5)
    keeper("two")
    new = wait_for_record(tmp_path / "d.json", other_than=old["pid"])
    assert new["code"] == "two"
    with contextlib.suppress(ProcessLookupError):
        assert records.start_time(old["pid"]) != old["start"]


def test_the_daemon_has_a_session_of_its_own(keeper: Keeper, tmp_path: Path) -> None:
    keeper("one")
    pid = wait_for_record(tmp_path / "d.json")["pid"]
    deadline = time.monotonic() + 10
    while os.getsid(pid) != pid:  # it is recorded as soon as it is forked
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_record_of_another_boot_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write(path, os.getpid(), "x")
    assert records.read(path) is not None
    path.write_text(path.read_text().replace(records.boot_id(), "another-boot"))
    assert records.read(path) is None
