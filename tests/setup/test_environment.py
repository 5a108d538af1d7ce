"""Each process is told what it needs: bootstrap's password and the database's go no further."""

from __future__ import annotations

import json
import shlex
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from scripts import supervise, up
from scripts.state import State

SECRETS = {
    "MOORAGE_ADMIN_PASSWORD": "correct-horse",
    "MOORAGE_DATABASE_URL": "postgresql://moorage:battery@127.0.0.1/moorage",
    "MOORAGE_EMAIL_URL": "smtps://moorage:battery@mail.example.org",
}

READ_REDIS = {"web", "control", "worker", "agent"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    for name, value in {"MOORAGE_STATE": str(tmp_path), **SECRETS}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MOORAGE_REDIS_URL", raising=False)
    (tmp_path / "run/logs").mkdir(parents=True)
    return State.from_environment()


def test_the_password_of_the_first_start_is_bootstraps_alone(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def bootstrap(_: list[str], environment: dict[str, str], __: str) -> str:
        given.update(environment)
        return json.dumps({"user": "admin", "password": None})

    monkeypatch.setattr(up, "_run", bootstrap)
    up.prepare(state)
    assert given["MOORAGE_ADMIN_PASSWORD"] == "correct-horse"
    assert given["MOORAGE_RUN"] == str(state.run)
    assert "MOORAGE_ADMIN_PASSWORD" not in state.environment()
    assert state.environment()["MOORAGE_DATABASE_URL"] == SECRETS["MOORAGE_DATABASE_URL"]


def told(command: str, environment: dict[str, str]) -> str:
    """What a supervised command's own process finds in its environment."""
    words = shlex.split(command)
    prefix = words[: words.index("--") + 1]
    return subprocess.run([*prefix, "env"], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("url", ["", "redis://:staple@127.0.0.1:6379/0"], ids=["ours", "given"])
def test_each_url_with_a_password_is_known_to_its_readers_alone(
    state: State, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MOORAGE_REDIS_URL", url)
    state = State.from_environment()
    config = RawConfigParser(interpolation=None)
    text = supervise.write_config(state).read_text()
    config.read_string(text)
    commands = {
        name.removeprefix("program:"): config[name]["command"] for name in config if name.startswith("program:")
    }
    told_each = {name: told(command, state.environment()) for name, command in commands.items()}
    assert {name for name, said in told_each.items() if "battery" in said} == {"web", "control"}
    assert {name for name, said in told_each.items() if "MOORAGE_REDIS_URL" in said} == READ_REDIS
    assert {name for name, said in told_each.items() if "staple" in said} == (READ_REDIS if url else set())
    assert set(commands) == {"engine", "haproxy", *READ_REDIS, *(() if url else ("valkey",))}
    assert not [secret for secret in ("battery", "horse", "staple") if secret in text]
    assert not [secret for secret in SECRETS if secret in state.plain_environment()]
