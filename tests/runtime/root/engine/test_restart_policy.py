"""When the engine starts a container again by itself, and what of that outlives the engine."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from tests.runtime.root.engine.conftest import IN_GUEST, Engine, eventually


def life(engine: Engine, name: str) -> dict[str, Any]:
    path = engine.containers / engine.inspect(name)["Id"] / "record.json"
    found: dict[str, Any] = json.loads(path.read_text())["life"]
    return found


def waits_s(engine: Engine, since: float, name: str) -> list[float]:
    """The times between each end and the next start."""
    flags = ("--filter", f"container={name}", "--filter", "event=die", "--filter", "event=start")
    lines = engine.docker(
        "events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}", *flags, "--format", "{{.TimeNano}}"
    ).split()
    times = [int(line) / 1e9 for line in lines]
    return [start - end for end, start in zip(times[1::2], times[2::2], strict=False)]


def test_each_wait_is_twice_the_one_before(engine: Engine) -> None:
    since = time.time()
    engine.docker("run", "-d", "--name", "fails", "--restart", "always", "busybox", "false")
    eventually(lambda: life(engine, "fails")["failures"] == 6, "the end of the fifth restart")
    found = waits_s(engine, since, "fails")
    assert all(wait >= expected for wait, expected in zip(found, (0.1, 0.2, 0.4, 0.8, 1.6), strict=True))
    assert sum(found) < 3.1 + (30 if IN_GUEST else 3)  # and not much longer
    assert "Restarting (1)" in engine.docker("ps")


def test_a_policy_is_changed_while_it_runs(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "kept", "busybox", "sh", "-c", "exec sleep 600", cli=cli)
    engine.docker("update", "--restart", "on-failure:3", "kept", cli=cli)
    policy = engine.inspect("kept")["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 3}
    pid = engine.inspect("kept")["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: engine.inspect("kept")["RestartCount"] == 1, "the restart")
    eventually(lambda: engine.status("kept") == "running", "running")
    engine.docker("update", "--restart", "no", "kept", cli=cli)
    os.kill(engine.inspect("kept")["State"]["Pid"], signal.SIGKILL)
    assert engine.docker("wait", "kept", cli=cli).strip() == "137"
    assert (engine.status("kept"), engine.inspect("kept")["RestartCount"]) == ("exited", 1)
    engine.docker("start", "kept")
    assert engine.inspect("kept")["RestartCount"] == 0
    assert "AutoRemove" in refused_update(engine)


def refused_update(engine: Engine) -> str:
    engine.docker("create", "--rm", "--name", "brief", "busybox", "true")
    return engine.docker("update", "--restart", "always", "brief", code=1)


def test_a_wait_goes_on_under_the_next_engine(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "fails", "--restart", "always", "busybox", "false")
    times = 9 if IN_GUEST else 7  # a wait that is longer than an engine takes to come back
    before = eventually(
        lambda: (found := life(engine, "fails"))["failures"] == times and found, "a wait of some seconds"
    )
    engine.end(signal.SIGKILL)
    engine.start()
    assert before["due_ns"] > time.time_ns() and life(engine, "fails") == before
    assert engine.status("fails") == "restarting"
    eventually(lambda: engine.inspect("fails")["RestartCount"] == times, "the restart")
    assert 0 <= time.time_ns() - before["due_ns"] < (30e9 if IN_GUEST else 5e9)
    eventually(lambda: life(engine, "fails")["failures"] == times + 1, "the count goes on")


def test_one_that_is_stopped_while_it_waits_gives_its_address_and_ports_back(engine: Engine) -> None:
    flags = ("--restart", "always", "-p", "127.0.0.1:0:80")
    engine.docker("run", "-d", "--name", "fails", *flags, "busybox", "false")
    eventually(lambda: life(engine, "fails")["failures"] == 6, "a longer wait")
    assert engine.docker("port", "fails") != ""
    engine.docker("stop", "fails")
    assert engine.status("fails") == "exited" and engine.docker("port", "fails") == ""
    assert engine.inspect("fails")["NetworkSettings"]["IPAddress"] == ""


def test_one_that_is_paused_stays_so_under_the_next_engine(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "600")
    engine.docker("pause", "frozen")
    engine.end(signal.SIGKILL)
    engine.start()
    assert engine.status("frozen") == "paused" and "(Paused)" in engine.docker("ps")
    engine.docker("unpause", "frozen")
    assert engine.docker("exec", "frozen", "echo", "here") == "here\n"
