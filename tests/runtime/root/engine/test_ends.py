"""How containers are asked to end, who is told, and with which status."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.runtime.root.engine.conftest import Engine, busybox_archive, eventually

TRAPS = "trap 'exit 41' TERM; trap 'exit 42' USR1; trap 'exit 43' QUIT; echo ready; while :; do sleep 0.05; done"


def waiting(engine: Engine, name: str, condition: str) -> subprocess.Popen[bytes]:
    url = f"http://x/containers/{name}/wait?condition={condition}"
    command = ["curl", "-sN", "-D", "-", "--unix-socket", str(engine.socket), "-X", "POST", url]
    process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE)
    assert process.stdout
    while process.stdout.readline() not in (b"\r\n", b""):
        pass  # the head comes at once: from here on it waits
    return process


def answer(process: subprocess.Popen[bytes]) -> int:
    out, _ = process.communicate(timeout=60)
    code: int = json.loads(out)["StatusCode"]
    return code


def trapping(engine: Engine, name: str, *flags: str, image: str = "busybox") -> None:
    engine.docker("run", "-d", "--name", name, *flags, image, "sh", "-c", TRAPS)
    eventually(lambda: "ready" in engine.docker("logs", name), "the traps")


def test_many_wait_for_one_end_and_all_are_told(engine: Engine) -> None:
    trapping(engine, "one")
    many = [waiting(engine, "one", c) for c in ("not-running", "next-exit", "") for _ in range(10)]
    engine.docker("stop", "one")
    assert [answer(process) for process in many] == [41] * 30
    late = [waiting(engine, "one", c) for c in ("next-exit", "removed")]
    assert answer(waiting(engine, "one", "not-running")) == 41
    with pytest.raises(subprocess.TimeoutExpired):
        late[0].wait(0.3)
    assert late[1].poll() is None
    engine.docker("rm", "one")
    assert [answer(process) for process in late] == [41, 41]
    assert engine.call("POST", "/containers/one/wait?condition=never")[0] == 404


def test_the_next_exit_is_one_that_is_still_to_come(engine: Engine) -> None:
    engine.docker("create", "--name", "later", "busybox", "sh", "-c", "exit 5")
    process = waiting(engine, "later", "next-exit")
    assert answer(waiting(engine, "later", "not-running")) == 0
    engine.docker("start", "later")
    assert answer(process) == 5
    assert engine.call("POST", "/containers/later/wait?condition=never")[0] == 400


def test_it_is_asked_by_the_images_signal_the_containers_or_the_callers(engine: Engine, cli: str) -> None:
    assert engine.call("POST", "/images/load?quiet=1", busybox_archive("usr1:latest", StopSignal="SIGUSR1"))[0] == 200
    trapping(engine, "image", image="usr1")
    trapping(engine, "own", "--stop-signal", "QUIT", image="usr1")
    for name, code in (("image", 42), ("own", 43)):
        engine.docker("stop", name, cli=cli)
        assert engine.inspect(name)["State"]["ExitCode"] == code
    engine.docker("start", "own")
    eventually(lambda: engine.docker("logs", "own").count("ready") == 2, "the traps")
    assert engine.call("POST", "/containers/own/stop?signal=NOPE")[0] == 400
    assert engine.call("POST", "/containers/own/stop?signal=TERM")[0] == 204
    assert engine.inspect("own")["State"]["ExitCode"] == 41
    body = {"Image": "busybox", "StopSignal": "NOPE"}
    assert "Invalid signal" in engine.call("POST", "/containers/create", body)[1]["message"]


def test_a_signal_of_an_image_that_does_not_exist_is_no_obstacle(engine: Engine) -> None:
    assert engine.call("POST", "/images/load?quiet=1", busybox_archive("odd:latest", StopSignal="SIGODD"))[0] == 200
    trapping(engine, "odd", image="odd")
    engine.docker("stop", "odd")
    assert engine.inspect("odd")["State"]["ExitCode"] == 41


def test_the_grace_is_the_containers_unless_the_caller_says_otherwise(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "deaf", "--stop-timeout", "1", "busybox", "sleep", "600", cli=cli)
    assert engine.inspect("deaf")["Config"]["StopTimeout"] == 1
    for flags, least in (((), 1), (("-t", "3"), 3)):
        began = time.monotonic()
        engine.docker("stop", *flags, "deaf", cli=cli)
        assert least <= time.monotonic() - began < least + 8
        assert engine.inspect("deaf")["State"]["ExitCode"] == 137
        engine.docker("start", "deaf")


@pytest.mark.parametrize(
    ("flags", "command", "code"),
    [
        (("--privileged",), ("true",), 125),
        ((), ("/etc",), 126),
        ((), ("/nosuch",), 127),
        ((), ("sh", "-c", "exit 128"), 128),
        (("--init",), ("sh", "-c", "kill -TERM $$"), 143),
        (("--init",), ("sh", "-c", "kill -KILL $$"), 137),
    ],
)
def test_statuses_say_who_failed_and_by_which_signal(
    engine: Engine, cli: str, flags: tuple[str, ...], command: tuple[str, ...], code: int
) -> None:
    engine.docker("run", "--name", "ends", *flags, "busybox", *command, cli=cli, code=code)
    if code != 125:
        assert engine.inspect("ends")["State"]["ExitCode"] == code
        assert engine.docker("wait", "ends", cli=cli) == f"{code}\n"


def test_a_killed_container_says_128_and_the_signal(engine: Engine, cli: str) -> None:
    engine.docker("run", "-d", "--name", "hit", "busybox", "sleep", "600")
    engine.docker("kill", "hit", cli=cli)
    assert engine.docker("wait", "hit", cli=cli) == "137\n"
    engine.docker("start", "hit")
    for command, code in ((("sh", "-c", "kill -TERM $$"), 143), (("nosuch",), 127), (("/etc",), 126)):
        engine.docker("exec", "hit", *command, cli=cli, code=code)
