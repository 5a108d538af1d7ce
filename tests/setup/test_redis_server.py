"""Which Redis a platform uses: the one it is given, else the system's if it is new enough, else the bundled one."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import supervise
from scripts.state import State

VALKEY, REDIS = "Valkey server v={} sha=00000000:0 malloc=jemalloc", "Redis server v={} sha=00000000:0 malloc=jemalloc"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("PATH", str(tmp_path))
    return State(tmp_path, "127.0.0.1", 8080, "localhost", "localhost", "", "local")


def install(state: State, name: str, says: str) -> Path:
    """A server in the only folder of PATH; nothing but its version is asked."""
    path = state.folder / name
    path.write_text(f'#!/bin/sh\necho "{says}"\n')
    path.chmod(0o755)
    return path


def servers(state: State) -> list[str]:
    """What the platform would start."""
    return [program.command[0] for program in supervise.programs(state) if program.name == "valkey"]


def test_one_that_is_given_is_used_and_none_is_started(state: State) -> None:
    install(state, "valkey-server", VALKEY.format("8.1.1"))
    given = replace(state, redis_url="redis://127.0.0.1:6379/0")
    assert servers(given) == []
    assert given.settings()["MOORAGE_REDIS_URL"] == "redis://127.0.0.1:6379/0"
    assert state.settings()["MOORAGE_REDIS_URL"] == f"unix://{state.run}/valkey.sock"


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "10.0.1"])
@pytest.mark.parametrize(("name", "says"), [("valkey-server", VALKEY), ("redis-server", REDIS)])
def test_the_systems_comes_before_the_bundled_one(state: State, name: str, says: str, version: str) -> None:
    assert servers(state) == [supervise.bundled_valkey()]
    found = install(state, name, says.format(version))
    assert servers(state) == [str(found)]


@pytest.mark.parametrize("says", [REDIS.format("6.0.16"), REDIS.format("5.9"), "Redis server, broken"])
def test_an_older_one_is_passed_over(state: State, says: str) -> None:
    install(state, "redis-server", says)
    assert servers(state) == [supervise.bundled_valkey()]
    install(state, "valkey-server", says)
    assert servers(state) == [supervise.bundled_valkey()]
    newer = install(state, "redis-server", REDIS.format("7.2.4"))
    assert servers(state) == [str(newer)]


def test_the_bundled_one_runs_and_is_new_enough() -> None:
    said = subprocess.run([supervise.bundled_valkey(), "--version"], capture_output=True, text=True, check=True).stdout
    assert int(said.partition(" v=")[2].partition(".")[0]) >= 7
