"""Limits that explain themselves: each, when a program inside really meets it, is an event with its figures and its level."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.root.engine.conftest import PATIENCE_S, Engine, eventually
from tests.runtime.root.engine.test_limits import create, limit_events

MB = 1 << 20
WITHIN_S = 25.0 if os.environ.get("MOORAGE_TEST_VM") else 5.0  # the guest is emulated
HOG = ["sh", "-c", "while :; do :; done"]
type Events = list[dict[str, Any]]


def version(engine: Engine) -> str:
    return str(engine.call("GET", "/info")[1]["CgroupVersion"])


def first(events: Events, within_s: float = WITHIN_S, **wanted: str) -> dict[str, Any]:
    """The first event with these attributes."""

    def look() -> dict[str, Any] | None:
        return next((e for e in events if wanted.items() <= e.items()), None)

    try:
        return eventually(look, f"an event with {wanted}", within_s)
    except pytest.fail.Exception:
        pytest.fail(f"no event with {wanted} within {within_s} s among {events}")


def group(engine: Engine, path: str, **limits: int) -> None:
    assert engine.call("POST", "/moorage/groups", {"path": path, **limits})[0] == 204


@contextmanager
def groups(engine: Engine, **limits: dict[str, int]) -> Iterator[None]:
    """Limits of `acme` and `acme__web` meanwhile."""
    for name, wanted in limits.items():
        group(engine, name.replace("__", "/"), **wanted)
    try:
        yield
    finally:
        for name in limits:
            group(engine, name.replace("__", "/"))


def test_a_cpu_hog_is_told_within_five_seconds_and_once(engine: Engine) -> None:
    with limit_events(engine) as events:
        create(engine, "hot", HOG, NanoCpus=200_000_000)
        hit = first(events, limit="cpu")
        assert (hit["level"], hit["allowed"], hit["name"]) == ("instance", "200", "hot")
        assert "0.2 CPU" in hit["sentence"] and float(hit["since"]) == pytest.approx(time.time(), abs=WITHIN_S)
        create(engine, "idle", ["sleep", "60"], NanoCpus=200_000_000)
        create(engine, "late", HOG, NanoCpus=100_000_000)
        first(events, limit="cpu", name="late")
    assert [e["name"] for e in events if e["limit"] == "cpu"] == ["hot", "late"]


def test_the_cpu_of_an_app_and_of_a_team_is_told_to_those_who_are_slowed(engine: Engine) -> None:
    with limit_events(engine) as events, groups(engine, acme={"NanoCpus": 200_000_000}):
        create(engine, "rest", ["sleep", "60"], CgroupParent="acme/rest")
        create(engine, "one", HOG, CgroupParent="acme/one")
        create(engine, "two", HOG, CgroupParent="acme/two")
        for name in ("one", "two"):
            hit = first(events, limit="cpu", name=name)
            assert (hit["level"], hit["allowed"]) == ("team", "200")
            assert "0.2 CPU shared by all apps of this team" in hit["sentence"]
        assert not any(e["name"] == "rest" for e in events)
    engine.clear()
    with limit_events(engine) as events, groups(engine, acme__web={"NanoCpus": 200_000_000}):
        create(engine, "web", HOG, CgroupParent="acme/web", NanoCpus=1_000_000_000 if version(engine) == "2" else 0)
        assert first(events, limit="cpu")["level"] == "app"


BOMB = ["sh", "-c", "sh -c 'while :; do sleep 60 & done'; exec sleep 60"]


def test_refused_processes_are_told_with_the_limit_that_refused_them(engine: Engine) -> None:
    with limit_events(engine) as events:
        create(engine, "bomb", BOMB, PidsLimit=20)
        hit = first(events, limit="pids")
    assert (hit["level"], hit["used"], hit["allowed"]) == ("instance", "20", "20")
    assert "limit of 20 processes" in hit["sentence"]


def test_an_apps_limit_of_processes_is_named(engine: Engine) -> None:
    with limit_events(engine) as events, groups(engine, acme__web={"PidsLimit": 30}):
        create(engine, "bomb", BOMB, CgroupParent="acme/web", PidsLimit=200)
        hit = first(events, limit="pids")
    assert (hit["level"], hit["allowed"]) == ("app", "30") and "all instances of this app" in hit["sentence"]


def test_a_killed_process_is_named_and_whether_the_instance_went_with_it(engine: Engine) -> None:
    # `tail` is not the first process: v1 ends it alone, v2 the whole group (memory.oom.group)
    with limit_events(engine) as events:
        create(engine, "side", ["sh", "-c", "sleep 0.2; tail /dev/zero; sleep 60"], Memory=32 * MB, MemorySwap=32 * MB)
        hit = first(events, limit="memory", process="tail")
        assert ("whole instance" in hit["sentence"]) == (version(engine) == "2")
        create(engine, "main", ["sh", "-c", "exec tail /dev/zero"], Memory=32 * MB, MemorySwap=32 * MB)
        assert "and the whole instance with it" in first(events, limit="memory", name="main")["sentence"]
    assert (engine.status("side") == "running") == (version(engine) == "1")


def test_kills_that_follow_each_other_are_told_together(engine: Engine) -> None:
    if version(engine) == "2":
        return  # there the first one ends the whole instance
    with limit_events(engine) as events:
        create(engine, "again", ["sh", "-c", "while :; do tail /dev/zero; done"], Memory=32 * MB, MemorySwap=32 * MB)
        eventually(lambda: any("kills" in e["sentence"] for e in events), "kills told together")
    kills = [e for e in events if e["limit"] == "memory"]
    assert len(kills) == 2 and "the last of " in kills[1]["sentence"]


# More is kept in memory than can be given back, and files are read beside it
FULL = "head -c {kept} /dev/zero > /dev/shm/kept; head -c 60000000 /dev/zero > /file; while :; do cat /file /dev/shm/kept > /dev/null; done"


def test_memory_that_is_full_is_told_before_anything_is_killed(engine: Engine) -> None:
    with limit_events(engine) as events:
        command = ["sh", "-c", FULL.format(kept=118 * MB)]
        create(engine, "full", command, ShmSize=256 * MB, Memory=128 * MB, MemorySwap=128 * MB)
        hit = first(events, PATIENCE_S, limit="memory")
    assert engine.status("full") == "running" and hit["process"] == ""
    assert int(hit["used"]) >= 0.9 * 128 * MB and "of 128 MB" in hit["sentence"]


def test_memory_above_the_mark_is_told_where_there_is_one(engine: Engine) -> None:
    if version(engine) == "1":
        return  # memory.high is v2's
    with limit_events(engine) as events:
        create(engine, "high", ["sh", "-c", "sleep 3; head -c 60000000 /dev/zero | tail -c 50000000 | wc -c"])
        path = f"moorage-{engine.short}/default/{engine.call('GET', '/containers/high/json')[1]['Id']}/memory.high"
        Path("/sys/fs/cgroup", path).write_text(str(16 * MB))
        hit = first(events, limit="memory")
    assert hit["allowed"] == str(16 * MB) and "more than 16 MB (memory.high)" in hit["sentence"]


@pytest.mark.parametrize(
    ("limit", "command", "said"),
    [
        ("DiskReadBps", "dd if=/f of=/dev/null bs=64k iflag=direct", "Reading from disk"),
        ("DiskWriteBps", "dd if=/dev/zero of=/f bs=64k count=640 oflag=direct conv=notrunc", "Writing to disk"),
        ("DiskReadIOps", "dd if=/f of=/dev/null bs=4k iflag=direct", "Reading from disk"),
    ],
)
def test_a_disk_that_is_used_as_fast_as_it_may_be_is_told(engine: Engine, limit: str, command: str, said: str) -> None:
    allowed = 50 if limit.endswith("IOps") else 2 * MB
    prepare = "dd if=/dev/zero of=/f bs=1M count=40; sync"
    with limit_events(engine) as events:
        create(engine, "io", ["sh", "-c", f"{prepare}; sleep 3600"], StorageOpt={"size": "64m"})
        eventually(lambda: engine.docker("exec", "io", "pgrep", "sleep", code=None).strip(), "the file")
        assert engine.call("POST", "/containers/io/update", {limit: allowed})[0] == 200
        engine.docker("exec", "-d", "io", "sh", "-c", f"while :; do {command}; done")
        hit = first(events, limit="disk_io")
    assert hit["allowed"] == str(allowed) and hit["sentence"].startswith(f"{said} is held back") and hit["name"] == "io"


@pytest.mark.parametrize(("limited", "said"), [("from", "Sending"), ("to", "Receiving")])
def test_a_network_that_is_used_as_fast_as_it_may_be_is_told(engine: Engine, limited: str, said: str) -> None:
    def rates(name: str) -> dict[str, int]:
        key = "RateOut" if said == "Sending" else "RateIn"
        return {key: 1_000_000} if name == limited else {}

    with limit_events(engine) as events:
        create(engine, "to", ["sh", "-c", "while :; do sleep 600 | nc -l -p 99 > /dev/null; done"], **rates("to"))
        address = engine.inspect("to")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        listening = lambda: ":0063 " in engine.docker("exec", "to", "cat", "/proc/net/tcp", "/proc/net/tcp6", code=None)  # noqa: E731
        eventually(listening, "the receiver")
        create(engine, "from", ["sh", "-c", f"nc {address} 99 < /dev/zero"], **rates("from"))
        hit = first(events, limit="network")
    assert (hit["name"], hit["allowed"], hit["level"]) == (limited, "1000000", "instance")
    assert hit["sentence"].startswith(f"{said} is held back") and "of 1 Mbit/s" in hit["sentence"]
    engine.clear()  # a connection with unsent bytes outlives its process, and holds the link for two seconds
    eventually(lambda: not engine.leftovers(), "the end of the links")
