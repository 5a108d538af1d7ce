"""What a reboot leaves is the disk: containers whose policy says so come back, at their addresses and ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from runtime.engine.orphans import family
from runtime.kernel import cgroups
from runtime.kernel.process import ProcessRef
from runtime.network import leftovers
from tests.runtime.root.engine.conftest import Engine, eventually

BEFORE = "00000000-0000-4000-8000-000000000000"
SERVE = "echo $0 > /tmp/x; exec httpd -f -p 8000 -h /tmp"


def power_off(engine: Engine) -> None:
    """Take away what no reboot keeps: processes, cgroups, links, firewall, /run. The boot written down becomes another one."""
    engine.end(signal.SIGKILL)
    for pid in family(engine.short):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    groups, root, run = cgroups.detect(), f"moorage-{engine.short}", Path("/run/moorage") / engine.short
    groups.kill(root)
    groups.remove(root)
    leftovers.destroy(engine.state, run)
    shutil.rmtree(run)
    for name in ("record.json", "state.json"):
        for path in engine.containers.glob(f"*/{name}"):
            path.write_text(
                path.read_text().replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), BEFORE)
            )


def seat(engine: Engine, name: str) -> tuple[str, str]:
    network = engine.inspect(name)["NetworkSettings"]
    bound = network["Ports"].get("8000/tcp")
    return next(iter(network["Networks"].values()))["IPAddress"], bound[0]["HostPort"] if bound else ""


def fetched(address: str, port: str) -> str:
    command = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "--max-time", "20"]
    done = subprocess.run([*command, f"http://{address}:{port}/x"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def serve(engine: Engine, name: str, *flags: str) -> None:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", SERVE, name)


def test_those_whose_policy_says_so_come_back_at_their_addresses_and_ports(engine: Engine) -> None:
    engine.docker("network", "create", "acme")
    engine.docker("run", "-d", "--name", "first", "--network", "acme", "busybox", "sleep", "600")
    serve(engine, "always", "--restart", "always", "--network", "acme", "-p", "127.0.0.1:0:8000")
    serve(engine, "unless", "--restart", "unless-stopped", "--network", "acme")
    serve(engine, "failing", "--restart", "on-failure", "--storage-opt", "size=64m", "-p", "127.0.0.1:0:8000")
    serve(engine, "stopped", "--restart", "unless-stopped")
    serve(engine, "by-hand", "--restart", "always")
    engine.docker("stop", "-t", "0", "stopped")
    engine.docker("stop", "-t", "0", "by-hand")
    engine.docker("rm", "-f", "first")  # so that addresses given out anew would be others
    back = ("always", "unless", "failing")
    before = {name: seat(engine, name) for name in back}
    assert fetched("127.0.0.1", before["always"][1]) == "always"
    engine.docker("run", "-d", "--name", "no", "busybox", "sleep", "600")
    power_off(engine)
    engine.start()
    for name in (*back, "by-hand"):
        eventually(lambda name=name: engine.status(name) == "running", name)  # type: ignore[misc]
    assert {name: seat(engine, name) for name in back} == before
    assert [fetched("127.0.0.1", before[n][1]) for n in ("always", "failing")] == ["always", "failing"]
    assert [fetched(before[n][0], "8000") for n in back] == list(back)
    assert "default via" in engine.docker("exec", "always", "ip", "route")
    found = engine.docker("exec", "always", "wget", "-q", "-O", "-", "http://unless:8000/x")
    assert found.strip() == "unless"
    assert engine.status("stopped") == engine.status("no") == "exited"
    state = engine.inspect("no")["State"]
    assert state["ExitCode"] == -1 and "host was restarted" in state["Moorage"]["sentence"]
    engine.clear()
    engine.docker("network", "rm", "acme")


def test_one_that_is_created_meanwhile_does_not_take_an_address(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "late", "--restart", "always", "busybox", "sh", "-c", "sleep 600 & exit 3")
    eventually(lambda: engine.inspect("late")["State"]["Status"] == "restarting", "a wait")
    assert json.loads((engine.containers / engine.inspect("late")["Id"] / "record.json").read_text())["life"]["seat"]
    eventually(lambda: engine.inspect("late")["RestartCount"] >= 5, "longer waits")
    address = seat(engine, "late")[0]
    engine.end(signal.SIGKILL)
    leftovers.destroy(engine.state, Path("/run/moorage") / engine.short)
    shutil.rmtree(Path("/run/moorage") / engine.short / "sandboxes")
    engine.start()
    restarts = engine.inspect("late")["RestartCount"]
    engine.docker("run", "-d", "--name", "new", "busybox", "sleep", "600")
    assert engine.inspect("late")["RestartCount"] == restarts, "the test was too slow for its wait"
    assert seat(engine, "new")[0] != address
    engine.docker("rm", "-f", "late")


def test_processes_that_have_the_numbers_of_the_last_boots_are_left_alone(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "back", "--restart", "always", "busybox", "sleep", "600")
    engine.docker("run", "-d", "--name", "rests", "busybox", "sleep", "600")
    engine.docker("pause", "rests")
    power_off(engine)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        ref = ProcessRef.of(stranger.pid)
        for path in engine.containers.glob("*/state.json"):
            body = json.loads(path.read_text())
            for who in ("monitor", "init"):
                body[who] = {"pid": ref.pid, "start_ticks": ref.start_ticks, "boot_id": BEFORE}
            path.write_text(json.dumps(body))
        engine.start()
        eventually(lambda: engine.status("back") == "running", "back")
        assert engine.inspect("back")["State"]["Pid"] != stranger.pid and engine.status("rests") == "exited"
        engine.docker("rm", "-f", "back")
        assert stranger.poll() is None
        stranger.kill()


def test_a_port_that_is_taken_at_first_is_had_in_the_end(engine: Engine) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        serve(engine, "fixed", "--restart", "always", "-p", f"127.0.0.1:{port}:8000")
        power_off(engine)
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", port))
            engine.start()
            eventually(lambda: "in use" in engine.inspect("fixed")["State"]["Error"], "the refusal")
            assert engine.status("fixed") == "restarting"
        began = time.monotonic()
        eventually(lambda: engine.status("fixed") == "running", "the next try")
        assert fetched("127.0.0.1", str(port)) == "fixed" and time.monotonic() - began < 20
