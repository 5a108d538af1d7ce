"""Sockets and threads inside a network namespace: a socket stays where it was made, whoever uses it later."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 2.0
HOST = Path("/proc/self/ns/net")


def inside[T](path: Path, function: Callable[[], T]) -> T:
    """What `function` returns when it runs in the namespace bound at `path`."""

    def body() -> T:
        with path.open() as file:
            os.setns(file.fileno(), os.CLONE_NEWNET)
        return function()

    with ThreadPoolExecutor(1) as thread:  # a thread of its own, which ends in there
        return thread.submit(body).result()


def socket_in(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """An IPv4 socket of a namespace, with a time-out."""
    sock = inside(path, lambda: socket.socket(socket.AF_INET, kind))
    sock.settimeout(PATIENCE_S)
    return sock


def listen_in(path: Path, port: int, address: str = "0.0.0.0") -> socket.socket:
    """A TCP server of a namespace."""
    sock = socket_in(path)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock


def reaches(path: Path, address: str, port: int) -> bool:
    """Whether a namespace gets a TCP connection to an address within two seconds."""
    with socket_in(path) as sock:
        try:
            sock.connect((address, port))
        except OSError:
            return False
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel does in the background and tells nobody, such as the end of a namespace."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 5 s"
        time.sleep(0.01)


@dataclass(frozen=True)
class World:
    """A second machine: a namespace beside the host, linked to it without any bridge of ours."""

    path: Path
    address: str = "203.0.113.2"
    host_address: str = "203.0.113.1"


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Make the world and its link; both are gone afterwards."""
    path = folder / "world"
    path.touch()
    name = f"tw{os.getpid() % 10**6}"
    ip = f"ip -n {name}"
    steps = [
        f"ip netns add {name}",
        f"mount --bind /run/netns/{name} {path}",
        f"ip link add {name}h type veth peer name w0 netns {name}",
        f"ip addr add 203.0.113.1/24 dev {name}h",
        f"ip link set {name}h up",
        f"{ip} addr add 203.0.113.2/24 dev w0",
        f"{ip} addr add 198.51.100.7/32 dev w0",
        f"{ip} link set w0 up",
        f"{ip} link set lo up",
    ]
    try:
        for step in steps:
            subprocess.run(step.split(), check=True, capture_output=True)
        yield World(path)
    finally:
        for step in (f"umount {path}", f"ip link del {name}h", f"ip netns del {name}"):
            subprocess.run(step.split(), check=False, capture_output=True)
