"""Real networks of a state directory of the test's own, and the proof that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.network.bridge import Networks
from runtime.network.leftovers import destroy, leftovers, names_of
from runtime.network.model import Endpoint, Sandbox
from tests.runtime.root.network.inside import World, world

type Start = Callable[..., Awaitable[tuple[Sandbox, Endpoint]]]


@pytest.fixture
def pool() -> str:
    """A range of its own for each test process."""
    return f"10.231.{os.getpid() % 16 * 16}.0/20"


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """Where the engine's sockets and namespaces lie for the state directory `tmp_path`."""
    folder = Path("/run/moorage") / names_of(tmp_path).short
    folder.mkdir(parents=True)
    yield folder
    destroy(tmp_path, folder)
    deadline = time.monotonic() + 5
    while (found := leftovers(tmp_path, folder, running=False)).count and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel ends namespaces in the background and tells nobody
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert found.count == 0, found


@pytest_asyncio.fixture
async def networks(tmp_path: Path, run_dir: Path, pool: str) -> AsyncIterator[Networks]:
    """Networks of one engine."""
    opened = await Networks.open(tmp_path, run_dir, pool)
    yield opened
    await opened.close()


@pytest.fixture
def start(networks: Networks) -> Start:
    """Makes a sandbox and connects it: `await start("network", aliases=…)`."""

    async def start_one(network: str = "bridge", **options: object) -> tuple[Sandbox, Endpoint]:
        sandbox = await networks.create_sandbox(secrets.token_hex(32))
        return sandbox, await networks.connect(sandbox, network, **options)  # type: ignore[arg-type]

    return start_one


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[World]:
    """The world beyond the host."""
    with world(tmp_path) as made:
        yield made


async def in_thread[T](function: Callable[..., T], *args: object) -> T:
    """Run what blocks without holding up the resolver, which lives in this event loop."""
    return await asyncio.to_thread(function, *args)
