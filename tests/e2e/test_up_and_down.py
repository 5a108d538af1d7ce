"""A start, Ctrl-C, a second start and the end, as a person sees them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import records, trial
from scripts.state import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder of its own."""
    with tempfile.TemporaryDirectory(prefix="moorage-up-", dir="/var/tmp") as path:
        yield Path(path)


@pytest.mark.timeout(400)
def test_apps_answer_while_the_platform_is_interrupted_and_nothing_is_left_after_down(
    folder: Path, demo_archive: Path
) -> None:
    first = trial.up(folder, trial.free_port())
    assert len(first.password) >= 12
    assert first.call("POST", "/api/v1/apps", {"app": "stay", "plan": "nano"})[0] == 201
    status, answer = first.deploy("stay", demo_archive)
    assert status == 201, answer
    trial.interrupt(first)
    assert first.get("stay")[0] == 200
    engine = records.read(folder / "run/engine.json")
    second = trial.up(folder, first.port)
    assert records.read(folder / "run/engine.json") == engine
    assert second.password == "" or "first start" in second.password or "as set" in second.password
    assert second.get("stay")[0] == 200
    assert second.call("GET", "/api/v1/apps/stay")[1]["app"] == "stay"
    supervisord = int((folder / "run/supervisord.pid").read_text())
    foreground = records.read(folder / "run/up.json")
    assert foreground is not None
    os.kill(foreground["pid"], signal.SIGKILL)
    assert records.wait_for_end(supervisord, 20), "supervisor outlived a killed make up"
    assert second.get("stay")[0] == 200
    third = trial.up(folder, first.port)
    trial.interrupt(third)  # at the very moment of "ready"
    assert third.get("stay")[0] == 200
    engine = records.read(folder / "run/engine.json")
    assert engine is not None
    os.kill(engine["pid"], signal.SIGKILL)  # which nobody starts again but `down`
    assert "nothing is left" in trial.down(third)
    looked = subprocess.run(
        ["make", "--silent", "doctor"], cwd=ROOT, env=trial.outer_environment() | third.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert looked.returncode == 0 and "leftovers 0\n" in looked.stdout, looked.stdout + looked.stderr
    assert not third.state.run.exists()
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]


def test_a_port_in_use_is_one_sentence_and_leaves_nothing(folder: Path, platform: trial.Trial) -> None:
    state = folder / "new"
    environment = trial.outer_environment() | {"MOORAGE_STATE": str(state), "MOORAGE_PORT": str(platform.port)}
    done = subprocess.run(
        ["make", "--silent", "up"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"port {platform.port}" in done.stderr
    assert not state.exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder: Path) -> None:
    state = folder / "disk" / "new"
    state.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "full", state.parent], check=True)
    try:
        environment = trial.outer_environment() | {
            "MOORAGE_STATE": str(state),
            "MOORAGE_PORT": str(trial.free_port()),
        }
        done = subprocess.run(
            ["make", "--silent", "up"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "67 MB free and Moorage needs" in done.stderr  # 64 MiB
        assert list(state.parent.iterdir()) == []
    finally:
        subprocess.run(["umount", state.parent], check=True)


def test_a_second_up_on_the_same_folder_is_refused(platform: trial.Trial) -> None:
    done = subprocess.run(
        ["make", "--silent", "up"],
        cwd=ROOT,
        env=trial.outer_environment() | platform.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "another make up runs" in done.stderr


@pytest.mark.timeout(400)
def test_a_checkout_that_has_only_what_make_up_installs_serves_an_app(folder: Path) -> None:
    """A package that only the tests' environment has would be missed nowhere else."""
    checkout = folder / "checkout"
    files = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    fresh = trial.up(folder / "state", trial.free_port(), root=checkout)
    try:
        assert not (checkout / ".venv/.moorage-dev").exists()
        environment = trial.outer_environment() | fresh.environment
        done = subprocess.run(
            ["make", "--silent", "demo"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert fresh.get("hello")[0] == 200
    finally:
        trial.down(fresh)
