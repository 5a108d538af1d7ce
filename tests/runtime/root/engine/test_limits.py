"""Limits: set at creation, changed while running, told of when they are hit; groups of teams and apps."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runtime.root.engine.conftest import Engine, disk_rates, eventually
from worker.limits import resources
from worker.protocol import Limits


@contextmanager
def limit_events(engine: Engine) -> Iterator[list[dict[str, Any]]]:
    """Attributes of the limit events that come meanwhile."""
    address = f"http://x/events?filters={json.dumps({'type': ['moorage']}, separators=(',', ':'))}"
    found: list[dict[str, Any]] = []
    command = ["curl", "-sN", "-g", "--unix-socket", str(engine.socket), address]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert reader.stdout
        for line in reader.stdout:
            found.append(json.loads(line)["Actor"]["Attributes"])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually(lambda: engine.call("GET", "/info")[1]["NEventsListener"] > 0, "the follower")
    try:
        yield found
    finally:
        reader.kill()
        reader.wait()
        thread.join(5)


def create(engine: Engine, name: str, command: list[str], **host: Any) -> None:
    code, body = engine.call(
        "POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": command, "HostConfig": host}
    )
    assert code == 201, body
    code, body = engine.call("POST", f"/containers/{name}/start")
    assert code == 204, body


HOG = ["sh", "-c", "sleep 0.2; tail /dev/zero"]


def test_a_memory_hog_is_killed_and_the_figures_are_said(engine: Engine) -> None:
    with limit_events(engine) as events:
        create(engine, "hog", HOG, Memory=32 << 20, MemorySwap=32 << 20)
        eventually(lambda: engine.status("hog") == "exited", "the kill")
        eventually(lambda: bool(events), "the event")
    state = engine.inspect("hog")["State"]
    assert state["OOMKilled"] and "32 MB of 32 MB" in state["Moorage"]["sentence"]
    first = events[0]
    assert (first["limit"], first["level"], first["name"], first["allowed"]) == (
        "memory",
        "instance",
        "hog",
        str(32 << 20),
    )
    assert first["process"] == "tail" and "32 MB of 32 MB" in first["sentence"]


def test_a_teams_sum_is_held_and_named(engine: Engine) -> None:
    assert (
        engine.call("POST", "/moorage/groups", {"path": "acme", "Memory": 32 << 20, "MemorySwap": 32 << 20})[0] == 204
    )
    with limit_events(engine) as events:
        create(engine, "member", HOG, Memory=256 << 20, CgroupParent="acme/web")
        eventually(lambda: engine.status("member") == "exited", "the kill")
        eventually(lambda: bool(events), "the event")
    assert (events[0]["limit"], events[0]["level"], events[0]["allowed"]) == ("memory", "team", str(32 << 20))
    assert engine.call("POST", "/moorage/groups", {"path": "../x"})[0] == 400


def test_all_containers_together_weigh_a_quarter_of_what_runs_beside_them(engine: Engine) -> None:
    create(engine, "busy", ["sleep", "60"], CpuShares=2048)
    found = [p.read_text().strip() for p in Path("/sys/fs/cgroup").glob(f"*moorage-{engine.short}/cpu.weight")]
    found += [p.read_text().strip() for p in Path("/sys/fs/cgroup").glob(f"cpu*/moorage-{engine.short}/cpu.shares")]
    assert set(found) in ({"25"}, {"256"})  # unified cgroups, or not


def test_a_fork_bomb_stops_at_its_limit_and_is_told(engine: Engine) -> None:
    with limit_events(engine) as events:
        create(engine, "bomb", ["sh", "-c", "sh -c 'while :; do sleep 60 & done'; exec sleep 60"], PidsLimit=20)
        eventually(lambda: any(e["limit"] == "pids" for e in events), "the event")
    assert "of 20 processes" in next(e for e in events if e["limit"] == "pids")["sentence"]


def test_a_disk_has_the_size_asked_for_and_says_when_it_is_full(engine: Engine) -> None:
    with limit_events(engine) as events:
        fill = "dd if=/dev/zero of=/fill bs=1M count=200 2>&1; echo done; sleep 60"
        create(engine, "full", ["sh", "-c", fill], StorageOpt={"size": "50m"})
        eventually(lambda: "done" in engine.docker("logs", "full"), "the end of the writing")
        assert "No space left" in engine.docker("logs", "full")
        eventually(lambda: any(e["limit"] == "disk" for e in events), "the event")
    size = int(engine.docker("exec", "full", "stat", "-c", "%s", "/fill"))
    assert abs(size - (50 << 20)) < (50 << 20) * 0.06
    assert engine.call("POST", "/containers/full/update", {"DiskSize": 100 << 20}) == (200, {"Warnings": []})
    assert "30+0 records out" in engine.docker("exec", "full", "dd", "if=/dev/zero", "of=/more", "bs=1M", "count=30")


def test_limits_change_while_the_container_runs(engine: Engine) -> None:
    create(engine, "live", ["sh", "-c", "while :; do :; done"], NanoCpus=2_000_000_000)
    body = {
        "Memory": 48 << 20,
        "PidsLimit": 7,
        "NanoCpus": 200_000_000,
        "RateOut": 8_000_000,
        "LogRate": 1000,
        "RestartPolicy": {"Name": "always"},
    }
    assert engine.call("POST", "/containers/live/update", body) == (200, {"Warnings": []})
    stats = engine.call("GET", "/containers/live/stats?stream=0&one-shot=1")[1]
    assert (stats["memory_stats"]["limit"], stats["pids_stats"]["limit"]) == (48 << 20, 7)
    before = engine.call("GET", "/containers/live/stats?stream=0&one-shot=1")[1]["cpu_stats"]["cpu_usage"][
        "total_usage"
    ]
    began = time.monotonic()
    time.sleep(1.5)
    after = engine.call("GET", "/containers/live/stats?stream=0&one-shot=1")[1]["cpu_stats"]["cpu_usage"]["total_usage"]
    assert (after - before) / 1e9 / (time.monotonic() - began) < 0.3
    found = engine.inspect("live")
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert next(iter(found["NetworkSettings"]["Networks"].values()))["DriverOpts"]["moorage.rate.out"] == "8000000"
    assert engine.docker(
        "update", "--memory", "64m", "--memory-swap", "128m", "--cpus", "0.5", "--restart", "no", "live"
    )
    assert engine.inspect("live")["HostConfig"]["Memory"] == 64 << 20


def kernel_file(engine: Engine, name: str, v1: str, v2: str) -> str:
    """A file of the container's group, `v1` as controller/file."""
    controller, _, file = v1.partition("/")
    root = Path("/sys/fs/cgroup") if engine.call("GET", "/info")[1]["CgroupVersion"] == "2" else None
    group = f"moorage-{engine.short}/default/{engine.call('GET', f'/containers/{name}/json')[1]['Id']}"
    path = root / group / v2 if root else Path("/sys/fs/cgroup", controller, group, file)
    return path.read_text().strip()


def swap_of(engine: Engine, name: str) -> str:
    """Bytes of swap beside the memory, "max" without a limit, as the kernel has it."""
    if engine.call("GET", "/info")[1]["CgroupVersion"] == "2":
        return kernel_file(engine, name, "", "memory.swap.max")
    both = int(kernel_file(engine, name, "memory/memory.memsw.limit_in_bytes", ""))
    memory = int(kernel_file(engine, name, "memory/memory.limit_in_bytes", ""))
    return "max" if both > 1 << 62 else str(both - memory)


def test_swap_is_limited_beside_memory(engine: Engine) -> None:
    assert engine.call("GET", "/info")[1]["SwapLimit"]
    for asked, expected in ((96 << 20, str(32 << 20)), (64 << 20, "0"), (0, str(64 << 20)), (-1, "max")):
        create(engine, "swapping", ["sleep", "60"], Memory=64 << 20, MemorySwap=asked)
        assert swap_of(engine, "swapping") == expected
        engine.clear()
    create(engine, "planned", ["sleep", "60"], **resources(Limits(memory_bytes=64 << 20, swap_bytes=8 << 20)))
    assert swap_of(engine, "planned") == str(8 << 20)
    plan = resources(Limits(memory_bytes=96 << 20, swap_bytes=0))
    assert engine.call("POST", "/containers/planned/update", plan) == (200, {"Warnings": []})
    assert swap_of(engine, "planned") == "0"


def test_disk_rates_are_those_of_the_store_and_of_the_loop_device(engine: Engine) -> None:
    rates = {"DiskReadBps": 4 << 20, "DiskWriteBps": 3 << 20, "DiskReadIOps": 150, "DiskWriteIOps": 100}
    create(engine, "rated", ["sleep", "60"], StorageOpt={"size": "50m"}, **rates)
    state = json.loads((engine.containers / engine.inspect("rated")["Id"] / "state.json").read_text())
    loop = f"7:{state['loop'].removeprefix('loop')}"
    found = disk_rates(engine, "rated")
    assert loop in found and len(found) == 2 and all(held == rates for held in found.values())
    assert engine.call("POST", "/containers/rated/update", {"DiskReadIOps": 77}) == (200, {"Warnings": []})
    assert all(held == rates | {"DiskReadIOps": 77} for held in disk_rates(engine, "rated").values())


def test_memory_swap_of_the_command_lines_is_memory_and_swap_together(engine: Engine, cli: str) -> None:
    flags = ("--memory", "64m", "--memory-swap", "80m")
    assert "WARNING" not in engine.docker("run", "-d", "--name", "given", *flags, "busybox", "sleep", "60", cli=cli)
    assert swap_of(engine, "given") == str(16 << 20)
    engine.docker("update", "--memory", "64m", "--memory-swap", "128m", "given", cli=cli)
    assert swap_of(engine, "given") == str(64 << 20)


EAT = ["sh", "-c", "head -c 60000000 /dev/zero > /dev/shm/eaten; echo eaten; exec sleep 60"]
EATEN = {"ShmSize": 128 << 20, "Memory": 128 << 20, "MemorySwap": 128 << 20}


def test_memory_below_use_is_refused_with_the_figures_and_nothing_is_changed(engine: Engine) -> None:
    create(engine, "whole", EAT, **EATEN, NanoCpus=10**9, PidsLimit=50, StorageOpt={"size": "50m"})
    eventually(lambda: "eaten" in engine.docker("logs", "whole"), "what it keeps in memory")
    before = engine.inspect("whole")["HostConfig"]
    body = {"Memory": 32 << 20, "MemorySwap": 32 << 20, "NanoCpus": 10**8, "PidsLimit": 7, "DiskSize": 80 << 20}
    code, answer = engine.call("POST", "/containers/whole/update", body)
    assert code == 409, answer
    used = int(answer["message"].partition(" MB of memory are in use")[0])
    assert 57 <= used < 128 and "the new limit of 32 MB" in answer["message"]
    assert engine.inspect("whole")["HostConfig"] == before and engine.status("whole") == "running"
    assert kernel_file(engine, "whole", "pids/pids.max", "pids.max") == "50"
    assert kernel_file(engine, "whole", "memory/memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert kernel_file(engine, "whole", "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "100000"
    free = int(engine.docker("exec", "whole", "stat", "-f", "-c", "%a", "/")) * 4096
    assert free < 51 << 20


def test_what_was_changed_before_a_refusal_is_put_back(engine: Engine) -> None:
    create(engine, "unsized", ["sleep", "60"], Memory=64 << 20, MemorySwap=64 << 20, PidsLimit=50)
    code, answer = engine.call("POST", "/containers/unsized/update", {"PidsLimit": 7, "DiskSize": 80 << 20})
    assert code == 400 and "no size that could change" in answer["message"]
    assert kernel_file(engine, "unsized", "pids/pids.max", "pids.max") == "50"
    assert engine.inspect("unsized")["HostConfig"]["PidsLimit"] == 50


def test_a_teams_memory_below_use_is_refused_and_stays(engine: Engine) -> None:
    assert engine.call("POST", "/moorage/groups", {"path": "low", "Memory": 256 << 20})[0] == 204
    create(engine, "one", EAT, **EATEN, CgroupParent="low/web")
    eventually(lambda: "eaten" in engine.docker("logs", "one"), "what it keeps in memory")
    code, answer = engine.call("POST", "/moorage/groups", {"path": "low", "Memory": 32 << 20, "MemorySwap": 32 << 20})
    assert code == 409 and "the new limit of 32 MB" in answer["message"]
    assert engine.status("one") == "running"
    assert engine.call("POST", "/moorage/groups", {"path": "low"})[0] == 204


def test_a_refused_update_changes_nothing(engine: Engine) -> None:
    create(engine, "same", ["sleep", "60"], Memory=64 << 20)
    for body in (
        {"Memory": 1},
        {"Memory": "x"},
        {"PidsLimit": -5},
        {"DiskSize": 1 << 50},
        {"RestartPolicy": {"Name": "x"}},
    ):
        code, answer = engine.call("POST", "/containers/same/update", body)
        assert code == 400 and answer["message"]
    assert engine.inspect("same")["HostConfig"]["Memory"] == 64 << 20


def test_limits_of_an_update_hold_after_a_restart(engine: Engine) -> None:
    create(engine, "kept", ["sleep", "60"], Memory=64 << 20)
    engine.call("POST", "/containers/kept/update", {"Memory": 96 << 20})
    engine.docker("restart", "-t", "0", "kept")
    stats = engine.call("GET", "/containers/kept/stats?stream=0&one-shot=1")[1]
    assert stats["memory_stats"]["limit"] == 96 << 20


def test_heavy_throttling_is_told(engine: Engine) -> None:
    with limit_events(engine) as events:
        create(engine, "hot", ["sh", "-c", "while :; do :; done"], NanoCpus=100_000_000)
        eventually(lambda: any(e["limit"] == "cpu" for e in events), "the event", 30)
    hit = next(e for e in events if e["limit"] == "cpu")
    assert hit["allowed"] == "100" and "0.1 CPU" in hit["sentence"]
