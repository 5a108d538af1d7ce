"""What one does with containers that are there: logs, events, wait, exec, stop, kill, restart, stats."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.runtime.root.engine.conftest import Engine, eventually

COUNT = "i=0; while [ $i -lt 5 ]; do echo line $i; echo err $i >&2; i=$((i+1)); done"
TRAP = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"


def background(engine: Engine, *arguments: str, cli: str = "docker") -> subprocess.Popen[str]:
    command = [cli, "-H", f"unix://{engine.socket}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(engine: Engine, name: str, words: str) -> Callable[[], bool]:
    return lambda: words in engine.docker("logs", name)


def test_logs_are_complete_and_can_be_cut(engine: Engine, cli: str) -> None:
    engine.docker("run", "--name", "talk", "busybox", "sh", "-c", COUNT, cli=cli)
    found = engine.docker("logs", "talk", cli=cli).splitlines()
    assert sorted(found) == sorted([f"line {n}" for n in range(5)] + [f"err {n}" for n in range(5)])
    assert len(engine.docker("logs", "--tail", "3", "talk", cli=cli).splitlines()) == 3
    assert engine.docker("logs", "-t", "--tail", "1", "talk", cli=cli)[:2] == "20"
    assert engine.docker("logs", "--until", "2020-01-01T00:00:00Z", "talk", cli=cli) == ""
    assert len(engine.docker("logs", "--since", "1h", "talk", cli=cli).splitlines()) == 10


def test_logs_follow_to_the_end_and_then_stop(engine: Engine, cli: str) -> None:
    engine.docker(
        "run",
        "-d",
        "--name",
        "slow",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4; do echo $i; sleep 0.2; done; printf last",
    )
    assert engine.docker("logs", "-f", "slow", cli=cli).splitlines() == ["1", "2", "3", "4", "last"]
    assert engine.docker("logs", "-f", "slow", cli=cli).splitlines()[-1] == "last"


def test_a_follower_may_leave(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "quiet", "busybox", "sleep", "60")
    follower = background(engine, "logs", "-f", "quiet")
    time.sleep(0.3)
    follower.terminate()
    assert follower.wait(10) is not None
    assert engine.status("quiet") == "running"


def test_wait_answers_with_the_exit_status(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.3; exit 9")
    assert engine.docker("wait", "ends", cli=cli).strip() == "9"
    assert engine.docker("wait", "ends", cli=cli).strip() == "9"


def test_wait_for_removed_ends_with_the_removal(engine: Engine) -> None:
    engine.docker("create", "--name", "goes", "busybox", "true")
    waiting = subprocess.Popen(
        [
            "curl",
            "-sN",
            "--unix-socket",
            str(engine.socket),
            "-X",
            "POST",
            "http://x/containers/goes/wait?condition=removed",
        ],
        stdout=subprocess.PIPE,
    )
    time.sleep(0.3)
    assert waiting.poll() is None
    engine.docker("rm", "goes")
    out, _ = waiting.communicate(timeout=10)
    assert json.loads(out)["StatusCode"] == 0


def test_exec_carries_output_input_and_status(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "host", "-e", "A=1", "busybox", "sleep", "60")
    assert (
        engine.docker("exec", "-e", "B=2", "-w", "/tmp", "host", "sh", "-c", "echo $A $B $(pwd)", cli=cli)
        == "1 2 /tmp\n"
    )
    assert engine.docker("exec", "-u", "1000", "host", "id", "-u", cli=cli) == "1000\n"
    engine.docker("exec", "host", "sh", "-c", "exit 5", cli=cli, code=5)
    assert engine.docker("exec", "-i", "host", "wc", "-c", cli=cli, data=b"x" * 300_000).strip() == "300000"
    assert "not found" in engine.docker("exec", "host", "nosuch", cli=cli, code=127)
    assert len(engine.docker("exec", "host", "seq", "1", "200000", cli=cli).splitlines()) == 200_000
    engine.docker("exec", "-d", "host", "touch", "/tmp/made", cli=cli)
    eventually(lambda: "made" in engine.docker("exec", "host", "ls", "/tmp"), "the file of a detached exec")
    assert not list((engine.containers / engine.inspect("host")["Id"] / "exec").glob("*"))


def test_exec_into_what_does_not_run_is_refused(engine: Engine) -> None:
    engine.docker("create", "--name", "still", "busybox", "true")
    assert "not running" in engine.docker("exec", "still", "true", code=1)


def test_stop_asks_first_and_kills_after_the_grace(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "polite", "busybox", "sh", "-c", TRAP)
    eventually(said(engine, "polite", "ready"), "ready")
    engine.docker("stop", "polite", cli=cli)
    assert engine.inspect("polite")["State"]["ExitCode"] == 3
    assert engine.docker("logs", "polite").endswith("bye\n")
    engine.docker("run", "-d", "--name", "deaf", "busybox", "sleep", "60")
    began = time.monotonic()
    engine.docker("stop", "-t", "1", "deaf", cli=cli)
    assert 0.9 < time.monotonic() - began < 6
    assert engine.inspect("deaf")["State"]["ExitCode"] == 137
    engine.docker("stop", "deaf", cli=cli)


def test_kill_sends_signals(engine: Engine, cli: str) -> None:
    engine.docker(
        "run",
        "-d",
        "--name",
        "hit",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done",
    )
    eventually(said(engine, "hit", "ready"), "ready")
    engine.docker("kill", "-s", "USR1", "hit", cli=cli)
    assert engine.docker("wait", "hit").strip() == "42"
    assert "not running" in engine.docker("kill", "hit", cli=cli, code=1)
    assert "Invalid signal" in engine.docker("kill", "-s", "NOPE", "hit", cli=cli, code=1)


def test_start_attach_and_restart(engine: Engine, cli: str) -> None:
    engine.docker("create", "--name", "again", "busybox", "echo", "hello")
    assert engine.docker("start", "-a", "again", cli=cli) == "hello\n"
    assert engine.docker("start", "-a", "again", cli=cli) == "hello\n"
    assert engine.docker("logs", "again") == "hello\nhello\n"
    engine.docker("restart", "again", cli=cli)
    engine.docker("wait", "again")
    assert engine.docker("logs", "again") == "hello\nhello\nhello\n"


def test_attach_joins_a_running_container(engine: Engine) -> None:
    engine.docker("run", "-di", "--name", "echo", "busybox", "sh", "-c", "read a; read b; echo $b $a; exit 4")
    assert engine.docker("attach", "echo", data=b"one\ntwo\n", code=4) == "two one\n"


def test_pause_stops_time_and_unpause_lets_it_go_on(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "tick", "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    eventually(said(engine, "tick", "x"), "a tick")
    engine.docker("pause", "tick")
    assert engine.status("tick") == "paused"
    before = engine.docker("logs", "tick")
    time.sleep(0.3)
    assert engine.docker("logs", "tick") == before
    engine.docker("unpause", "tick")
    eventually(lambda: len(engine.docker("logs", "tick")) > len(before), "ticks after unpause")
    engine.docker("pause", "tick")
    engine.docker("rm", "-f", "tick")


def test_events_tell_what_happened(engine: Engine, cli: str) -> None:
    since = f"{time.time():.6f}"
    engine.docker("run", "--rm", "--name", "seen", "busybox", "sh", "-c", "exit 2", code=2)
    lines = engine.docker(
        "events", "--since", since, "--until", f"{time.time():.6f}", "--format", "{{.Action}}", cli=cli
    ).split()
    assert [a for a in lines if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]


def test_events_come_while_they_happen(engine: Engine, cli: str) -> None:
    flags = ("--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}")
    follower = background(engine, "events", *flags, cli=cli)
    try:
        eventually(lambda: engine.call("GET", "/info")[1]["NEventsListener"] > 0, "the follower")
        engine.docker("run", "--rm", "busybox", "sh", "-c", "exit 6", code=6)
        assert follower.stdout
        assert follower.stdout.readline().strip() == "6"
    finally:
        follower.kill()
        follower.wait()


def test_stats_show_cpu_memory_and_network(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "busy", "--memory", "64m", "busybox", "sh", "-c", "while :; do :; done")
    line = engine.docker("stats", "--no-stream", "--format", "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", "busy", cli=cli)
    assert float(line.split("%")[0]) > 10
    assert "64MiB" in line
    body = engine.call("GET", "/moorage/stats")[1]["containers"]
    assert body[0]["name"] == "busy" and body[0]["cpu_ns"] > 0 and body[0]["memory_limit_bytes"] == 64 << 20


def test_names_and_filters_of_ps(engine: Engine, cli: str) -> None:
    engine.docker("create", "--name", "old", "--label", "team=a", "busybox", "true")
    engine.docker("rename", "old", "new", cli=cli)
    assert engine.docker("ps", "-a", "--filter", "label=team=a", "--format", "{{.Names}}", cli=cli).strip() == "new"
    assert engine.docker("ps", "-a", "--filter", "label=team=b", "-q", cli=cli) == ""
    assert engine.docker("ps", "-a", "--filter", "status=created", "--filter", "name=new", "-q", cli=cli) != ""
    assert engine.docker("ps", "-q", cli=cli) == ""


def test_top_shows_the_processes_as_ps_would(engine: Engine, cli: str) -> None:
    engine.docker("run", "-dt", "-u", "1000", "--name", "seen", "busybox", "sh", "-c", "sleep 600; true", cli=cli)
    eventually(lambda: "sleep 600" in engine.docker("top", "seen", "-o", "args").splitlines(), "the shell's child")
    title, shell, sleep = engine.docker("top", "seen", cli=cli).splitlines()
    pid = str(engine.inspect("seen")["State"]["Pid"])
    assert title.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert (
        shell.split()[:2] == ["1000", pid] and shell.split()[5] == "pts/0" and shell.endswith("sh -c sleep 600; true")
    )
    assert sleep.split()[2] == pid and sleep.endswith("sleep 600")
    rows = [line.split() for line in engine.docker("top", "seen", "-o", "pid,stat,comm", cli=cli).splitlines()]
    assert rows == [["PID", "STAT", "COMM"], [pid, "S", "sh"], [sleep.split()[1], "S", "sleep"]]
    assert "USER" in engine.docker("top", "seen", "aux", cli=cli)
    assert "not known here" in engine.docker("top", "seen", "-o", "pid,nosuch", cli=cli, code=1)


@pytest.mark.parametrize(("policy", "code", "restarts"), [("on-failure:2", 1, 2), ("on-failure", 0, 0), ("no", 1, 0)])
def test_restart_policies_are_kept(engine: Engine, policy: str, code: int, restarts: int) -> None:
    engine.docker("run", "-d", "--name", "policy", "--restart", policy, "busybox", "sh", "-c", f"echo run; exit {code}")
    eventually(lambda: engine.status("policy") == "exited", "the last exit")
    assert engine.docker("logs", "policy").count("run") == restarts + 1
    assert engine.inspect("policy")["RestartCount"] == restarts


def test_always_restarts_with_the_same_address_until_it_is_stopped(engine: Engine) -> None:
    engine.docker(
        "run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "echo run; sleep 0.3; exit 1"
    )
    address = engine.inspect("always")["NetworkSettings"]["IPAddress"]
    eventually(lambda: engine.docker("logs", "always").count("run") >= 3, "three runs")
    eventually(lambda: engine.status("always") == "running", "running")
    assert engine.inspect("always")["NetworkSettings"]["IPAddress"] == address
    engine.docker("stop", "-t", "0", "always")
    assert engine.status("always") == "exited"
    runs = engine.docker("logs", "always").count("run")
    time.sleep(0.5)
    assert engine.docker("logs", "always").count("run") == runs


def test_images_are_listed_inspected_tagged_and_removed(engine: Engine, cli: str) -> None:
    assert "busybox" in engine.docker("images", cli=cli)
    engine.docker("tag", "busybox", "other:v1", cli=cli)
    assert json.loads(engine.docker("image", "inspect", "other:v1", cli=cli))[0]["Config"]["Cmd"] == ["sh"]
    assert "Untagged: other:v1" in engine.docker("rmi", "other:v1", cli=cli)
    engine.docker("create", "--name", "user", "busybox", "true")
    engine.docker("rmi", "busybox", cli=cli, code=1)
