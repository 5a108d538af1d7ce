"""Interfaces that are lent to a container: of a network of the test's own, in which the command line runs."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.root.oci_command.conftest import Config, Room

pytestmark = pytest.mark.root


class Network:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def ip(self, *words: str) -> str:
        command = ["ip", "-n", self.name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def outside(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Holds d0 and d1 with addresses; commands are carried out in it."""
    made = Network(f"moorage-{secrets.token_hex(4)}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        for number in (0, 1):
            made.ip("link", "add", f"d{number}", "type", "veth", "peer", "name", f"p{number}")
            made.ip("link", "set", f"d{number}", "up")
        made.ip("address", "add", "192.0.2.7/24", "dev", "d0")
        made.ip("address", "add", "169.254.9.9/16", "dev", "d0", "scope", "link")
        made.ip("address", "add", "2001:db8::7/64", "dev", "d0", "nodad")
        plain = room.call
        monkeypatch.setattr(
            room, "call", lambda *words, **options: plain(*words, prefix=("nsenter", f"--net={made.path}"), **options)
        )
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=True)


def lending(room: Room, devices: dict[str, Config], *args: str) -> Config:
    config = room.config(*args)
    config["linux"]["netDevices"] = devices
    return config


def test_interfaces_come_with_addresses_and_names(room: Room, outside: Network) -> None:
    script = "ip -o link; ip -o address"
    said = room.output(lending(room, {"d0": {"name": "eth7"}, "d1": {}}, "sh", "-c", script))
    up = {
        line.split()[1].partition("@")[0].rstrip(":")
        for line in said.splitlines()
        if "UP" in line.split()[2].strip("<>").split(",")
    }
    assert up == {"lo", "eth7", "d1"}
    assert "192.0.2.7/24 brd" not in said and "192.0.2.7/24" in said and "2001:db8::7/64" in said
    assert "169.254.9.9" not in said
    assert "d0" not in outside.ip("-o", "link")


def test_they_go_into_a_network_that_is_joined_and_stay_there(room: Room, outside: Network) -> None:
    other = Network(f"{outside.name}-b")
    subprocess.run(["ip", "netns", "add", other.name], check=True)
    try:
        config = lending(room, {"d0": {}}, "ip", "-o", "address")
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = other.path
        assert "192.0.2.7/24" in room.output(config)
        assert "192.0.2.7/24" in other.ip("-o", "address")
    finally:
        subprocess.run(["ip", "netns", "delete", other.name], check=True)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"d9": {}}, "there is no interface d9"),
        ({"d0": {}, "d9": {}}, "there is no interface d9"),
        ({"d0": {}, "d1": {"name": "lo"}}, "exists"),
        ({"d0": {"name": "a/b"}}, "no name of an interface"),
        ({"d0": {"name": "a"}, "d1": {"name": "a"}}, "two are to be named a"),
    ],
)
def test_what_cannot_be_lent_is_said_and_nothing_is_lost(
    room: Room, outside: Network, devices: dict[str, Config], words: str
) -> None:
    before = addresses(outside)
    done = room.run(lending(room, devices, "true"))
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert addresses(outside) >= {(name, address) for name, address in before if not address.startswith("169.")}


def test_a_start_that_fails_later_gives_them_back(room: Room, outside: Network) -> None:
    config = lending(room, {"d0": {"name": "eth7"}}, "true")
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    assert room.run(config).returncode == 1
    assert {("d0", "192.0.2.7/24"), ("d0", "2001:db8::7/64")} <= addresses(outside)
    assert not Path("/sys/class/net/d0").exists()


def test_in_the_hosts_network_there_is_nothing_to_lend(room: Room, outside: Network) -> None:
    config = lending(room, {"d0": {}}, "true")
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    done = room.run(config)
    assert (done.returncode, "the network is the host's" in done.stderr) == (1, True), done.stderr


def addresses(network: Network) -> set[tuple[str, str]]:
    """Every (interface, address) that does not come by itself."""
    lines = [line.split() for line in network.ip("-o", "address").splitlines()]
    return {(words[1], words[3]) for words in lines if not words[3].startswith("fe80")}
