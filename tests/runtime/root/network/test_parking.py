"""What is parked ahead of need is let go at the end, though more is being made at that moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime.engine.core import Core
from runtime.engine.idranges import IdRanges
from runtime.engine.parking import PARKED, Parking
from runtime.network.bridge import Networks

pytestmark = pytest.mark.root


class Launcher:
    """Forks no crew: sandboxes are what this is about."""

    pid = 1

    async def start(self) -> None:
        """It runs."""

    async def park(self, crew: str, netns: int, id_base: int) -> None:
        """As `LauncherClient.park`."""


@pytest.fixture
def parking(networks: Networks) -> Parking:
    """Parking of real sandboxes."""

    def spawn(work: Any, name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, name=name)

    core = SimpleNamespace(networks=networks, ids=IdRanges("1"), launcher=Launcher(), spawn=spawn)
    return Parking(cast(Core, core))


@pytest.mark.parametrize("made", range(PARKED + 2))
async def test_an_end_in_the_middle_of_preparing_is_an_end(parking: Parking, networks: Networks, made: int) -> None:
    real, let_go, asked = networks.park, 0, 0
    reached = asyncio.Event()

    async def park() -> Any:
        nonlocal asked
        asked += 1
        if asked > made:
            reached.set()
        return await real()

    async def discard(parked: Any) -> None:
        nonlocal let_go
        let_go += 1
        parked.namespace.close()

    networks.park, networks.discard = park, discard  # type: ignore[method-assign]
    parking.fill()
    if made < PARKED + 1:
        await reached.wait()
    async with asyncio.timeout(10):
        await parking.close()
    assert let_go == asked
    parking.fill()
    await asyncio.sleep(0)
    assert let_go == asked
