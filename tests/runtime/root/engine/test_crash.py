"""What dies and comes back: engine, launcher, monitor. Containers live on, exits are known, nothing is left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import Engine, eventually

ON_TERM = "trap 'echo last; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
TICK = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


@pytest.fixture(autouse=True)
def an_engine_runs(engine: Engine) -> Iterator[None]:
    """Each test begins with a living engine."""
    if engine.process is None:
        engine.start()
    yield
    if engine.process is None:
        engine.start()


def crash(engine: Engine) -> None:
    engine.end(signal.SIGKILL)


def test_a_container_outlives_a_killed_engine_and_loses_no_line(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "lives", "busybox", "sh", "-c", TICK)
    pid = engine.inspect("lives")["State"]["Pid"]
    crash(engine)
    assert Path(f"/proc/{pid}").exists()
    engine.start()
    assert engine.inspect("lives")["State"]["Pid"] == pid
    before = len(engine.docker("logs", "lives").splitlines())
    eventually(lambda: len(engine.docker("logs", "lives").splitlines()) > before + 2, "more lines")
    lines = engine.docker("logs", "lives").splitlines()
    assert lines == [str(n) for n in range(len(lines))]
    assert engine.docker("exec", "lives", "echo", "here") == "here\n"
    engine.docker("stop", "-t", "0", "lives")
    assert engine.inspect("lives")["State"]["ExitCode"] == 137


def test_an_exit_while_no_engine_ran_is_known_afterwards(engine: Engine) -> None:
    engine.docker(
        "run",
        "-d",
        "--name",
        "ends",
        "busybox",
        "sh",
        "-c",
        ON_TERM,
    )
    pid = engine.inspect("ends")["State"]["Pid"]
    crash(engine)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")
    engine.start()
    state = engine.inspect("ends")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 5)
    assert engine.docker("logs", "ends") == "ready\nlast\n"


def test_rm_is_kept_when_the_end_came_while_no_engine_ran(engine: Engine) -> None:
    engine.docker("run", "-d", "--rm", "--name", "brief", "busybox", "sh", "-c", ON_TERM)
    eventually(lambda: "ready" in engine.docker("logs", "brief"), "the trap")
    pid = engine.inspect("brief")["State"]["Pid"]
    crash(engine)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")
    engine.start()
    eventually(lambda: engine.status("brief") == "gone", "the removal")


def test_the_restart_policy_holds_over_an_engine_that_was_away(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "keeps", "--restart", "always", "busybox", "sleep", "600")
    engine.docker("run", "-d", "--name", "rests", "--restart", "unless-stopped", "busybox", "sleep", "600")
    engine.docker("stop", "-t", "0", "rests")
    pid = engine.inspect("keeps")["State"]["Pid"]
    crash(engine)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")
    engine.start()
    eventually(lambda: engine.status("keeps") == "running", "the restart")
    assert engine.inspect("keeps")["State"]["Pid"] != pid
    assert engine.status("rests") == "exited"


def exec_detached(engine: Engine, name: str, *command: str) -> str:
    """An exec that runs; its id."""
    code, made = engine.call("POST", f"/containers/{name}/exec", {"Cmd": [*command], "User": "app"})
    assert code == 201, made
    assert engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200
    return str(made["Id"])


def exec_state(engine: Engine, identity: str) -> tuple[bool, int | None]:
    """Whether it runs, and its exit code."""
    code, found = engine.call("GET", f"/exec/{identity}/json")
    assert code == 200, found
    return found["Running"], found["ExitCode"]


def traps(pid: int, number: int) -> bool:
    """Whether a process catches a signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_running_exec_is_known_to_the_next_engine_and_the_end_of_one_that_it_did_not_see(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "600")
    folder = engine.containers / engine.inspect("host")["Id"] / "exec"
    lives = exec_detached(engine, "host", "sh", "-c", ON_TERM)
    ends = exec_detached(engine, "host", "sh", "-c", ON_TERM)
    killed = exec_detached(engine, "host", "sleep", "600")
    before = engine.call("GET", f"/exec/{lives}/json")[1]
    ending = engine.call("GET", f"/exec/{ends}/json")[1]["Pid"]
    eventually(lambda: traps(before["Pid"], signal.SIGTERM) and traps(ending, signal.SIGTERM), "the traps")
    monitor = json.loads((folder / f"{killed}.run.json").read_bytes())["monitor"]["pid"]
    crash(engine)
    os.kill(monitor, signal.SIGKILL)
    os.kill(ending, signal.SIGTERM)
    eventually((folder / f"{ends}.json").exists, "the exec's end")
    eventually(lambda: not Path(f"/proc/{monitor}").exists(), "the monitor's end")
    engine.start()
    assert engine.call("GET", f"/exec/{lives}/json")[1] == before and before["Running"]
    assert engine.inspect("host")["ExecIDs"] == [lives]
    assert (exec_state(engine, ends), exec_state(engine, killed)) == ((False, 5), (False, -1))
    assert engine.call("POST", f"/exec/{lives}/start", {"Detach": True})[0] == 409
    assert [path.name for path in folder.iterdir()] == [f"{lives}.run.json"]
    os.kill(before["Pid"], signal.SIGTERM)
    eventually(lambda: exec_state(engine, lives) == (False, 5), "its end")
    eventually(lambda: list(folder.iterdir()) == [], "the end of its files")
    assert engine.docker("exec", "host", "echo", "here") == "here\n"


def test_sigterm_leaves_containers_running(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "stays", "busybox", "sleep", "600")
    pid = engine.inspect("stays")["State"]["Pid"]
    engine.end()
    assert Path(f"/proc/{pid}").exists() and not engine.socket.exists()
    assert engine.leftovers() == {}
    engine.start()
    assert engine.status("stays") == "running"


def test_a_killed_monitor_ends_its_container_as_unknown(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "orphan", "busybox", "sleep", "600")
    pid = engine.inspect("orphan")["State"]["Pid"]
    os.kill(engine.monitor("orphan"), signal.SIGKILL)
    eventually(lambda: engine.status("orphan") == "exited", "the end")
    state = engine.inspect("orphan")["State"]
    assert state["ExitCode"] == -1 and "monitor" in state["Moorage"]["sentence"]
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container's process")
    engine.docker("start", "orphan")
    assert engine.status("orphan") == "running"


def test_a_monitor_killed_while_no_engine_ran_is_found_out(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "double", "busybox", "sleep", "600")
    monitor, pid = engine.monitor("double"), engine.inspect("double")["State"]["Pid"]
    crash(engine)
    os.kill(monitor, signal.SIGKILL)
    engine.start()
    assert engine.status("double") == "exited"
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")


def launcher_of(engine: Engine) -> int:
    assert engine.process
    children = Path(f"/proc/{engine.process.pid}/task/{engine.process.pid}/children").read_text().split()
    return int(children[0])


def test_a_killed_launcher_is_started_again_and_containers_do_not_notice(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "before", "busybox", "sleep", "600")
    launcher = launcher_of(engine)
    os.kill(launcher, signal.SIGKILL)
    assert engine.docker("run", "--rm", "busybox", "echo", "after") == "after\n"
    assert launcher_of(engine) != launcher
    assert engine.status("before") == "running"
    assert engine.docker("exec", "before", "echo", "too") == "too\n"


@pytest.mark.parametrize("delay_ms", [1, 5, 10, 20, 40])
def test_an_engine_killed_in_the_middle_of_a_start_leaves_nothing(engine: Engine, delay_ms: int) -> None:
    engine.docker("create", "--name", "half", "--restart", "no", "busybox", "sleep", "600")
    starting = threading.Thread(target=lambda: engine.docker("start", "half", code=None))
    starting.start()
    threading.Event().wait(delay_ms / 1000)
    crash(engine)
    starting.join()
    engine.start()
    assert engine.status("half") in ("created", "running", "exited")
    assert engine.leftovers() == {}
    engine.docker("rm", "-f", "half")
    assert engine.leftovers() == {}


@pytest.mark.parametrize("delay_ms", [1, 5, 10, 20])
def test_an_engine_asked_to_end_in_the_middle_of_a_start_finishes_it(engine: Engine, delay_ms: int) -> None:
    engine.docker("create", "--name", "whole", "busybox", "sleep", "600")
    starting = threading.Thread(target=lambda: engine.docker("start", "whole", code=None))
    starting.start()
    threading.Event().wait(delay_ms / 1000)
    engine.end(signal.SIGTERM)
    starting.join()
    engine.start()
    if engine.status("whole") == "running":
        assert engine.inspect("whole")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert "eth0" in engine.docker("exec", "whole", "ip", "address")
    assert engine.leftovers() == {}
    engine.docker("rm", "-f", "whole")
    assert engine.leftovers() == {}


def test_removing_one_that_restarts_all_the_time_leaves_nothing(engine: Engine) -> None:
    for _ in range(15):
        engine.docker("run", "-d", "--name", "busy", "--restart", "always", "busybox", "true")
        eventually(lambda: engine.inspect("busy")["RestartCount"] > 0, "a restart")
        engine.docker("rm", "-f", "busy")
        assert engine.leftovers() == {}


def test_a_monitor_whose_container_is_gone_is_counted_and_those_of_a_living_one_are_not(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "served", "busybox", "sleep", "600")
    engine.docker("exec", "-d", "served", "sleep", "600")
    monitor, folder = engine.monitor("served"), engine.containers / engine.inspect("served")["Id"]
    crash(engine)
    assert "processes" not in engine.leftovers()
    hidden = folder.rename(engine.state / "hidden")
    try:
        assert f"{monitor} moorage-monitor" in engine.leftovers()["processes"]
    finally:
        hidden.rename(folder)
    engine.start()
    assert engine.status("served") == "running"


def test_half_made_folders_are_swept(engine: Engine) -> None:
    crash(engine)
    torn = engine.containers / ("f" * 64)
    torn.mkdir()
    (torn / "record.json").write_text("{")
    removed = engine.containers / ("e" * 64 + ".removed")
    removed.mkdir()
    layer = engine.state / "engine" / "store" / "c" / ("d" * 64)
    shutil.copytree(engine.state / "engine" / "store" / "l" / "empty", layer)
    assert set(engine.leftovers()) >= {"folders", "layers"}
    engine.start()
    assert not torn.exists() and not removed.exists() and not layer.exists()
