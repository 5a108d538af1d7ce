"""Reaching another container's or the host's processes, sockets and memory."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator

import pytest

from tests.runtime.root.walls.conftest import ALL, COMMAND, Walls, Yard, kept

pytestmark = pytest.mark.root

HELD = {
    "signal_another": {"pid", "user"},
    "trace_another": {"pid", "user"},
    "read_anothers_memory": {"pid", "user"},
    "anothers_root": {"pid", "user"},
    "abstract_socket": {"network"},
    "shared_memory": {"ipc", "user"},
}
NAMES = list(HELD)
SHARED = frozenset(("pid", "network", "ipc"))
RUNS = {
    "all": ALL,
    "as podman makes it": COMMAND,
    "a user namespace alone": Walls(SHARED | {"filter", "capabilities"}),
    "none": Walls(SHARED | {"user"}),
}
IPC_CREAT, IPC_RMID = 0o1000, 0
_found: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="module")
def target(yard: Yard) -> Iterator[dict[str, object]]:
    """Another container's process, and an abstract socket and a piece of memory of the host's."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x6D000000 | os.getpid()
    memory = libc.shmget(key, 4096, IPC_CREAT | 0o600)
    assert memory >= 0, os.strerror(ctypes.get_errno())
    _, pid = yard.start(yard.spec("sleep", "600", walls=COMMAND))
    name = f"moorage-walls-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen(8)
        yield {"pid": pid, "abstract": name, "shm": key}
    libc.shmctl(memory, IPC_RMID, None)


def tried(yard: Yard, target: dict[str, object], run: str) -> dict[str, str]:
    """All attacks in one container, once for all tests."""
    return kept(_found, run, lambda: yard.try_all(NAMES, RUNS[run], **target))


@pytest.mark.parametrize("run", ["all", "as podman makes it", "a user namespace alone"])
def test_what_any_wall_holds_is_refused(yard: Yard, target: dict[str, object], run: str) -> None:
    off = RUNS[run].off
    through = [name for name, said in tried(yard, target, run).items() if HELD[name] - off and said == "through"]
    assert through == []


@pytest.mark.parametrize("name", NAMES)
def test_it_gets_through_without_its_walls(yard: Yard, target: dict[str, object], name: str) -> None:
    assert tried(yard, target, "none")[name] == "through"
