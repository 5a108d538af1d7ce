"""HEALTHCHECK, of the image or asked for: what a probe says is what `inspect`, `ps`, filters and events say."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from runtime.kernel.process import start_ticks
from tests.runtime.root.engine.conftest import Engine, busybox_archive, eventually

QUICK = ("--health-interval", "100ms")
LOOK = "echo looking; test -e /tmp/ok"


def health(engine: Engine, name: str = "checked") -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(name)["State"]["Health"]
    return found


def becomes(engine: Engine, status: str, name: str = "checked") -> None:
    eventually(lambda: health(engine, name)["Status"] == status, status)


def run(engine: Engine, *flags: str, image: str = "busybox", script: str = "touch /tmp/ok; exec sleep 600") -> None:
    engine.docker("run", "-d", "--name", "checked", *flags, image, "sh", "-c", script)


def events(engine: Engine, since: float, *flags: str) -> list[str]:
    until = f"{time.time():.6f}"
    found = engine.docker("events", "--since", f"{since:.6f}", "--until", until, "--format", "{{.Action}}", *flags)
    return found.splitlines()


def test_a_container_is_as_healthy_as_its_check_says(engine: Engine, cli: str) -> None:
    since = time.time()
    flags = ("--health-cmd", LOOK, *QUICK, "--health-retries", "2", "--health-timeout", "20s")
    engine.docker("run", "-d", "--name", "checked", *flags, "busybox", "sh", "-c", "exec sleep 600", cli=cli)
    becomes(engine, "unhealthy")
    found = health(engine)
    assert found["FailingStreak"] >= 2 and found["Log"][-1]["ExitCode"] == 1
    assert found["Log"][-1]["Output"] == "looking\n" and found["Log"][-1]["End"] > found["Log"][-1]["Start"]
    assert "(unhealthy)" in engine.docker("ps", cli=cli)
    engine.docker("exec", "checked", "touch", "/tmp/ok")
    becomes(engine, "healthy")
    assert "(healthy)" in engine.docker("ps", cli=cli) and health(engine)["FailingStreak"] == 0
    assert engine.docker("ps", "-q", "--filter", "health=healthy", cli=cli) != ""
    assert engine.docker("ps", "-q", "--filter", "health=unhealthy", cli=cli) == ""
    eventually(lambda: len(health(engine)["Log"]) == 5, "five probes")
    told = ["health_status: unhealthy", "health_status: healthy"]
    assert events(engine, since, "--filter", "event=health_status") == told
    assert not [e for e in events(engine, since) if e.startswith("exec_") and "looking" in e]
    engine.docker("stop", "-t", "0", "checked")
    assert health(engine)["Status"] == "unhealthy"


def test_an_images_check_counts_unless_it_is_changed_or_taken_away(engine: Engine, cli: str) -> None:
    check = {"Test": ["CMD-SHELL", "test $0 = mine"], "Interval": 10**8, "Retries": 1}
    shell = ["/bin/sh", "-c", 'sh -c "$0" mine']
    for name, more in (("plain", {}), ("shelled", {"Shell": shell})):
        archive = busybox_archive(f"{name}:latest", Healthcheck=check, **more)
        assert engine.call("POST", "/images/load?quiet=1", archive)[0] == 200
    run(engine, image="shelled")
    becomes(engine, "healthy")
    engine.docker("rm", "-f", "checked")
    run(engine, image="plain")
    becomes(engine, "unhealthy")
    assert engine.inspect("checked")["Config"]["Healthcheck"] == check
    engine.docker("rm", "-f", "checked")
    run(engine, "--health-retries", "50", image="plain")
    eventually(lambda: health(engine)["FailingStreak"] > 1, "failures")
    assert health(engine)["Status"] == "starting" and "(health: starting)" in engine.docker("ps")
    engine.docker("rm", "-f", "checked")
    engine.docker("run", "-d", "--name", "checked", "--no-healthcheck", "plain", "sleep", "600", cli=cli)
    assert "Health" not in engine.inspect("checked")["State"]
    assert engine.docker("ps", "-q", "--filter", "health=none", cli=cli) != ""


def test_a_probe_that_takes_too_long_is_ended_with_its_children(engine: Engine) -> None:
    slow = ("--health-cmd", "echo begun; sleep 987; true", "--health-timeout", "300ms", "--health-retries", "2")
    run(engine, *slow, *QUICK)
    becomes(engine, "unhealthy")
    eventually(lambda: len(health(engine)["Log"]) >= 4, "four probes")
    last = health(engine)["Log"][-1]
    assert last["ExitCode"] == -1 and last["Output"] == "Health check exceeded timeout (0.3s): begun\n"
    assert engine.docker("top", "checked").count("sleep 987") <= 2  # of the one under way: its shell and the sleep


def test_what_cannot_be_run_is_a_failure_with_a_reason(engine: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "Healthcheck": {"Test": ["CMD", "nosuch"], "Interval": 10**8}}
    assert engine.call("POST", "/containers/create?name=checked", body)[0] == 201
    engine.docker("start", "checked")
    becomes(engine, "unhealthy")
    assert health(engine)["Log"][-1]["ExitCode"] == -1 and "nosuch" in health(engine)["Log"][-1]["Output"]


def test_failures_while_it_starts_do_not_count(engine: Engine) -> None:
    flags = ("--health-start-period", "1h", "--health-start-interval", "100ms", "--health-retries", "1")
    run(engine, "--health-cmd", LOOK, *flags, "--health-interval", "100ms", script="exec sleep 600")
    eventually(lambda: len(health(engine)["Log"]) >= 3, "three probes")
    assert (health(engine)["Status"], health(engine)["FailingStreak"]) == ("starting", 0)
    engine.docker("exec", "checked", "touch", "/tmp/ok")
    becomes(engine, "healthy")
    engine.docker("exec", "checked", "rm", "/tmp/ok")
    becomes(engine, "unhealthy")


def test_nobody_looks_at_one_that_is_paused(engine: Engine) -> None:
    run(engine, "--health-cmd", LOOK, *QUICK)
    becomes(engine, "healthy")
    engine.docker("pause", "checked")
    seen = health(engine)["Log"]
    time.sleep(1)
    assert health(engine)["Log"] == seen
    engine.docker("unpause", "checked")
    eventually(lambda: health(engine)["Log"] != seen, "the next probe")
    assert health(engine)["Status"] == "healthy"


def test_the_next_engine_knows_how_it_was_and_looks_on(engine: Engine) -> None:
    run(engine, "--health-cmd", LOOK, "--health-interval", "2s", "--health-retries", "1")
    becomes(engine, "healthy")
    engine.end(signal.SIGKILL)
    engine.start()
    assert health(engine) == {"Status": "healthy", "FailingStreak": 0, "Log": []}
    engine.docker("exec", "checked", "rm", "/tmp/ok")
    becomes(engine, "unhealthy")
    engine.docker("restart", "-t", "0", "checked")
    assert health(engine)["Status"] == "starting"


def test_a_probe_ends_with_its_engine(engine: Engine) -> None:
    run(engine, "--health-cmd", "sleep 987; true", "--health-timeout", "10m", *QUICK)
    rows = eventually(lambda: [r for r in engine.docker("top", "checked").splitlines() if "sleep 987" in r], "a probe")
    pids = [int(row.split()[1]) for row in rows]
    engine.end(signal.SIGKILL)
    eventually(lambda: not any(start_ticks(pid) for pid in pids), "the probe's end")  # process 1 here reaps nobody
    engine.start()
    assert engine.status("checked") == "running"


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"Test": ["SHOUT", "x"]}, "Unknown healthcheck type"),
        ({"Test": ["CMD"]}, "0 commands"),
        ({"Test": ["CMD-SHELL", "a", "b"]}, "2 commands"),
        ({"Test": ["CMD", "true"], "Interval": 5}, "less than 1ms"),
        ({"Test": ["CMD", "true"], "Timeout": -1}, "Timeout"),
        ({"Test": "true", "Retries": -1}, "Unknown healthcheck type"),
    ],
)
def test_a_check_that_is_none_is_refused(engine: Engine, check: dict[str, Any], words: str) -> None:
    code, body = engine.call("POST", "/containers/create", {"Image": "busybox", "Healthcheck": check})
    assert code == 400 and words in body["message"]
