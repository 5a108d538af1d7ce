"""What is remembered on disk: networks in the state directory, sandboxes where a reboot forgets them together with them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from runtime.network.model import Endpoint, Network, PortBinding


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """A container's sandbox and its endpoints, in the order they were connected."""

    container_id: str
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Records:
    """Files of one engine: `networks` outlives a reboot and is synced, `sandboxes` lies on a tmpfs and is not."""

    networks: Path
    sandboxes: Path

    @classmethod
    def of(cls, state_dir: Path, run_dir: Path) -> Self:
        """The records of one state directory."""
        return cls(state_dir / "engine/networks", run_dir / "sandboxes")

    def prepare(self) -> None:
        """Make the folders."""
        self.networks.mkdir(parents=True, exist_ok=True)
        self.sandboxes.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load_networks(self) -> list[Network]:
        """All networks, oldest first."""
        found = [Network(**data) for data in _read_all(self.networks)]
        return sorted(found, key=lambda network: network.created)

    def save_network(self, network: Network) -> None:
        """Write a network durably."""
        _replace(self.networks / f"{network.id}.json", dataclasses.asdict(network), durable=True)

    def forget_network(self, network: Network) -> None:
        """Remove a network's files."""
        (self.networks / f"{network.id}.json").unlink(missing_ok=True)
        self._last(network.id).unlink(missing_ok=True)

    def load_sandboxes(self) -> list[SandboxRecord]:
        """All sandboxes."""
        return [_sandbox(data) for data in _read_all(self.sandboxes)]

    def save_sandbox(self, record: SandboxRecord) -> None:
        """Write a sandbox."""
        _replace(self.sandboxes / f"{record.container_id[:12]}.json", dataclasses.asdict(record), durable=False)

    def forget_sandbox(self, container_id: str) -> None:
        """Remove a sandbox's file."""
        (self.sandboxes / f"{container_id[:12]}.json").unlink(missing_ok=True)

    def last_address(self, network_id: str) -> IPv4Address | None:
        """The address given out last in a network."""
        try:
            return IPv4Address(self._last(network_id).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def save_last_address(self, network_id: str, address: str) -> None:
        """Remember the address given out last."""
        self._last(network_id).write_text(address)

    def _last(self, network_id: str) -> Path:
        return self.sandboxes / f"{network_id[:12]}.last"


def _sandbox(data: dict[str, Any]) -> SandboxRecord:
    return SandboxRecord(data["container_id"], tuple(_endpoint(item) for item in data["endpoints"]))


def _endpoint(data: dict[str, Any]) -> Endpoint:
    ports = tuple(PortBinding(**port) for port in data.pop("ports"))
    return Endpoint(**data | {"aliases": tuple(data["aliases"])}, ports=ports)


def _read_all(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_bytes())


def _replace(path: Path, data: dict[str, Any], *, durable: bool) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(data, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
