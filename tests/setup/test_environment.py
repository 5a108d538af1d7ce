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


def test_the_database_is_known_to_the_portals_processes_alone(state: State) -> None:
    config = RawConfigParser(interpolation=None)
    text = supervise.write_config(state).read_text()
    config.read_string(text)
    commands = {
        name.removeprefix("program:"): config[name]["command"] for name in config if name.startswith("program:")
    }
    know = {name for name, command in commands.items() if "battery" in told(command, state.environment())}
    assert know == {"web", "control"}
    assert set(commands) == {"valkey", "engine", "haproxy", "web", "control", "worker", "agent"}
    assert not [secret for secret in ("battery", "horse") if secret in text]
