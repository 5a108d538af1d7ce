"""What keeps the platform from starting is one sentence with the way out."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import preflight
from scripts.state import ROOT, SetupError, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path, "127.0.0.1", 8080, "localhost", "localhost", "", "local")


def test_a_port_in_use_is_named_with_the_way_out(state: State) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sentence = preflight.port(replace(state, port=taken.getsockname()[1]))
    assert "is in use" in sentence
    assert "MOORAGE_PORT" in sentence


def test_a_port_in_use_on_the_other_loopback_is_named_too(state: State) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen()
        assert "on ::1 is in use" in preflight.port(replace(state, port=taken.getsockname()[1]))


def test_a_full_disk_is_named_with_both_figures(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FREE_BYTES_NEEDED", 10**18)
    assert "MB free and Moorage needs" in preflight.disk(state)


@pytest.mark.parametrize(("table", "policy"), [("filter", "drop"), ("filter", "accept"), ("moorage_1", "drop")])
def test_a_firewall_that_drops_what_is_forwarded_is_named_with_the_way_out(table: str, policy: str) -> None:
    rules = f"nft add table ip {table} && nft 'add chain ip {table} FORWARD {{ type filter hook forward priority 0; policy {policy}; }}'"
    command = ["unshare", "-n", "sh", "-c", f"{rules} && nft --json list chains"]
    chains = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sentence = preflight.forwarding(chains, "m12b*")
    if (table, policy) == ("filter", "drop"):
        assert "`nft insert rule ip filter FORWARD iifname m12b* accept`" in sentence
    else:
        assert sentence == ""


def test_this_machine_has_what_is_needed(state: State) -> None:
    assert preflight.problems(replace(state, port=free_port())) == []


def test_someone_other_than_root_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from scripts import preflight, state; os.setuid(65534); "
        "print(preflight.problems(state.State.from_environment()))"
    )
    environment = {"MOORAGE_STATE": str(tmp_path / "state"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], env=environment, capture_output=True, text=True, check=False
    )
    assert "run it with sudo" in done.stdout, done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_PORT", "http")
    with pytest.raises(SetupError, match="1 to 65535"):
        State.from_environment()


def test_two_state_folders_share_no_name(state: State, tmp_path: Path) -> None:
    other = replace(state, folder=tmp_path / "other")
    assert other.short != state.short
    assert other.run != state.run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
