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
from scripts.trial import free_port, outer_environment


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


UP = "import os, sys; from scripts import up; up.State.make_folders = lambda _: sys.exit('it went on'); {}sys.exit(up.main())"
NOBODY = "os.setgroups([]); os.setuid(65534); "
HIDDEN_MODULES = "[ ! -d /lib/modules ] || mount -t tmpfs none /lib/modules"
FEWER = {
    "root": ("unshare -m", "", "this needs root, because it makes namespaces, cgroups and mounts: run it with sudo."),
    "overlay": (
        "unshare -m",
        f"grep -v overlay /proc/filesystems >$TMP/has; mount --bind $TMP/has /proc/filesystems; {HIDDEN_MODULES}",
        "has no overlay file system: use one with CONFIG_OVERLAY_FS.",
    ),
    "user namespaces": (
        "unshare -m -U -r",
        "echo 0 >/proc/sys/user/max_user_namespaces",
        "makes no user namespaces: set sysctl user.max_user_namespaces to 10000",
    ),
    "disk": (
        "unshare -m",
        "mount -t tmpfs -o size=64m full $TMP",
        "67 MB free and Moorage needs 1074 MB: make room or set MOORAGE_STATE to a larger disk.",
    ),
    "port": ("unshare -m", "", "is in use: end what listens there, or set MOORAGE_PORT to another."),
}


@pytest.mark.parametrize("lacking", FEWER)
def test_a_machine_that_lacks_something_is_told_in_one_sentence_and_nothing_is_made(
    tmp_path: Path, lacking: str
) -> None:
    """`make up` where that is really so: in namespaces of its own, as someone else, beside a listener. It would stop at its first
    folder."""
    unshare, change, words = FEWER[lacking]
    folder = tmp_path / "state"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if lacking == "port" else free_port()
        environment = outer_environment() | {
            "TMP": str(tmp_path),
            "MOORAGE_STATE": str(folder),
            "MOORAGE_PORT": str(port),
        }
        up = UP.format(NOBODY if lacking == "root" else "")
        command = [*unshare.split(), "sh", "-ec", f'{change or ":"}; exec "$@"', "sh", sys.executable, "-c", up]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("moorage: ") and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not folder.exists()
    assert not replace(State.from_environment(), folder=folder).run.exists()


def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_PORT", "http")
    with pytest.raises(SetupError, match="1 to 65535"):
        State.from_environment()


def test_two_state_folders_share_no_name(state: State, tmp_path: Path) -> None:
    other = replace(state, folder=tmp_path / "other")
    assert other.short != state.short
    assert other.run != state.run
