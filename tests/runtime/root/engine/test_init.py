"""`docker run --init`: tini is process 1, reaps what is left behind, and hands signals on."""

from __future__ import annotations

import time

from tests.runtime.root.engine.conftest import Engine, eventually

ORPHANS = "(sleep 0.1 & sleep 0.1 &) ; touch /tmp/left; exec sleep 600"


def zombies(engine: Engine, name: str) -> int:
    """Busybox's ps puts names of processes without a command line in brackets."""
    return engine.docker("exec", name, "ps").count("[sleep]")


def test_process_1_is_tini_and_the_exit_status_the_programs(engine: Engine, cli: str) -> None:
    found = engine.docker("run", "--init", "--name", "led", "-u", "1000", "busybox", "ps", "-o", "pid,args", cli=cli)
    assert found.splitlines()[1].split() == ["1", "/sbin/docker-init", "--", "ps", "-o", "pid,args"]
    assert engine.inspect("led")["HostConfig"]["Init"] and engine.inspect("led")["Path"] == "ps"
    engine.docker("run", "--init", "--rm", "busybox", "sh", "-c", "exit 7", cli=cli, code=7)
    engine.docker("run", "--init", "--rm", "busybox", "nosuch", cli=cli, code=127)
    assert engine.docker("run", "--init", "-t", "--rm", "busybox", "tty") == "/dev/pts/0\r\n"


def test_signals_are_handed_on(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--init", "--name", "led", "busybox", "sleep", "600", cli=cli)
    began = time.monotonic()
    engine.docker("stop", "-t", "60", "led", cli=cli)
    assert time.monotonic() - began < 40 and engine.inspect("led")["State"]["ExitCode"] == 143


def test_orphans_are_reaped(engine: Engine) -> None:
    for name, flags in (("led", ["--init"]), ("alone", [])):
        engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", ORPHANS)
    eventually(lambda: zombies(engine, "alone") == 2, "two zombies")
    eventually(lambda: engine.docker("exec", "led", "ls", "/tmp") == "left\n", "the shell's end")
    eventually(lambda: "\nsleep 0.1" not in engine.docker("exec", "led", "ps", "-o", "args"), "the end of both")
    assert zombies(engine, "led") == 0


def test_nobody_inside_can_change_it(engine: Engine) -> None:
    script = "chmod 777 /sbin/docker-init; grep docker-init /proc/self/mountinfo"
    found = engine.docker("run", "--init", "--rm", "busybox", "sh", "-c", script).splitlines()
    assert "Read-only file system" in found[0] and found[1].split()[5].startswith("ro")
