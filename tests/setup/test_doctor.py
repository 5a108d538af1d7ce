"""`python -m scripts.doctor` as a person runs it: 0 and exit status 0, or every kind of leftover counted by its name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.engine import orphans
from runtime.kernel import cgroups
from scripts import down, records
from scripts.doctor import dying_in_words
from scripts.state import PYTHON, ROOT, State
from scripts.trial import free_port, outer_environment
from tests.dying import dying_groups

pytestmark = pytest.mark.root

POOL = "10.233.64.0/18"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A state folder in which an engine was once."""
    (tmp_path / "engine").mkdir()
    for name in [name for name in os.environ if name.startswith("MOORAGE_")]:
        monkeypatch.delenv(name)
    for name, value in {"STATE": tmp_path, "PORT": free_port(), "SUBNET_POOL": POOL}.items():
        monkeypatch.setenv(f"MOORAGE_{name}", str(value))
    return State.from_environment()


def doctor(state: State, **other: str) -> tuple[int, str]:
    """Its exit status and the line of what is left over."""
    done = look(state, **other)
    said = [line for line in done.stdout.splitlines() if line.startswith("leftovers ")]
    assert len(said) == 1 and "missing" not in done.stdout, done.stdout + done.stderr
    return done.returncode, said[0].split(maxsplit=1)[1]


def look(state: State, **other: str) -> subprocess.CompletedProcess[str]:
    """All it says."""
    command = [str(PYTHON), "-m", "scripts.doctor"]
    environment = outer_environment() | state.settings() | other
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


@contextlib.contextmanager
def group(state: State) -> Iterator[Path]:
    """An instance's cgroup with a process in it."""
    base = Path("/sys/fs/cgroup" if cgroups.detect().version == 2 else "/sys/fs/cgroup/pids")
    path = base / f"moorage-{state.short}" / ("a" * 64)
    path.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "600"])
    (path / "cgroup.procs").write_text(str(process.pid))
    try:
        yield path
    finally:
        process.kill()
        process.wait()
        path.rmdir()
        path.parent.rmdir()


def plant(state: State, stack: ExitStack) -> None:
    """One of each kind in this state's names."""
    mounted = state.folder / "engine/left"
    mounted.mkdir()
    link, table = f"m{state.short[:4]}left", f"moorage_{state.short}"
    run("mount", "-t", "tmpfs", "left", mounted)
    stack.callback(run, "umount", mounted)
    run("ip", "link", "add", link, "type", "veth", "peer", "name", f"x{state.short}")
    stack.callback(run, "ip", "link", "delete", link)
    run("nft", "add", "table", "ip", table)
    stack.callback(run, "nft", "delete", "table", "ip", table)
    stack.enter_context(group(state))


def test_each_kind_of_leftover_is_counted_by_name_and_none_of_another_state(state: State, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "engine").mkdir(parents=True)
    with ExitStack() as stack:
        plant(state, stack)
        status, said = doctor(state)
        assert doctor(state, MOORAGE_STATE=str(other)) == (0, "0")
    assert status == 1
    for words in (
        f"1 mounts ({state.folder}/engine/left)",
        f"1 links (m{state.short[:4]}left)",
        f"1 tables (table ip moorage_{state.short})",
        f"moorage-{state.short}/{'a' * 64}",
    ):
        assert words in said
    assert {part.split("(")[0].strip() for part in said.split("), ")} == {
        *("1 mounts", "2 cgroups", "1 links", "1 tables", "1 processes")
    }
    assert doctor(state) == (0, "0")


def dying(state: State) -> int:
    """How many groups it counts that were removed and hold pages."""
    done = look(state)
    said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("dying ")]
    assert (done.returncode, len(said)) == (0, 1), done.stdout + done.stderr
    return int(said[0])


def test_dying_groups_are_counted_and_are_no_leftover(state: State) -> None:
    """Other software of the machine makes and removes groups meanwhile: many are made, and a few are allowed to be its."""
    before = dying(state)
    with dying_groups(f"moorage-dying{os.getpid()}", 30):
        assert dying(state) >= before + 24
    deadline = time.monotonic() + 10
    while dying(state) > before + 6:  # the kernel frees them in its own time
        assert time.monotonic() < deadline


@pytest.mark.parametrize("count", [0, 1000, 1001])
def test_many_dying_groups_are_warned_of_with_the_way_out(count: int) -> None:
    *warning, line = dying_in_words(count)
    assert line.startswith(f"dying     {count} removed memory groups of this machine")
    assert bool(warning) == (count > 1000)
    assert not warning or "`sync; echo 3 >/proc/sys/vm/drop_caches`" in warning[0]


@pytest.fixture
def engine(state: State) -> Iterator[records.Record]:
    """An engine that runs; whatever becomes of it, nothing of it is left at the end."""
    state.make_folders()
    found = down.start_engine(state)
    assert found is not None
    try:
        yield found
    finally:
        assert down.end_all(state) == []


@pytest.fixture
def killed(state: State, engine: records.Record) -> Iterator[int]:
    """The launcher of an engine that was killed: it was stopped before, so neither it nor what it has parked could end."""
    deadline = time.monotonic() + 30
    while len(found := orphans.family(state.short)) < 3:  # launcher, parked monitor, its maker or crew
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    launcher = min(found, key=lambda pid: records.start_time(pid) or 0)
    os.kill(launcher, signal.SIGSTOP)
    try:
        os.kill(engine["pid"], signal.SIGKILL)
        os.waitpid(engine["pid"], 0)
        yield launcher
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher, signal.SIGCONT)


def test_what_a_killed_engine_left_running_is_counted_and_nothing_is_after_down(
    state: State, killed: int, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "engine").mkdir(parents=True)
    status, said = doctor(state)
    assert status == 1
    assert f"{killed} moorage-launch" in said
    assert int(said.partition(" processes")[0].split()[-1]) >= 3
    assert f"moorage_{state.short}" in said.partition(" tables (")[2]
    assert doctor(state, MOORAGE_STATE=str(other)) == (0, "0")
    os.kill(killed, signal.SIGCONT)
    assert down.end_all(state) == []
    assert doctor(state) == (0, "0")
    assert (
        state.short not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    )


def test_an_engine_that_runs_and_what_it_has_in_hand_is_no_leftover(state: State, engine: records.Record) -> None:
    assert records.start_time(engine["pid"]) == engine["start"]
    assert doctor(state) == (0, "0")
