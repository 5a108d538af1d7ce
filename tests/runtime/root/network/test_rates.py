"""Held to the plan's rate, in both directions, and changed while traffic flows."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from runtime.network.bridge import Networks
from runtime.network.model import Endpoint, Sandbox
from tests.runtime.root.network.conftest import Start
from tests.runtime.root.network.inside import HOST, listen_in, socket_in

pytestmark = pytest.mark.root

SECONDS = 6.0
CHUNK = bytes(64 * 1024)
PORT = 5001


def poured(sandbox: Sandbox, endpoint: Endpoint, direction: str, seconds: float) -> float:
    """Bits per second that arrive over one TCP connection between the host and a sandbox, measured at the receiver."""
    with listen_in(sandbox.path, PORT) as listener, socket_in(HOST) as client:
        client.connect((endpoint.address, PORT))
        server, _ = listener.accept()
        sender, receiver = (client, server) if direction == "in" else (server, client)
        thread = threading.Thread(target=pour, args=(sender, seconds + 1))
        thread.start()
        received, begin = 0, time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            receiver.settimeout(begin + seconds - now)
            try:
                received += len(receiver.recv(1 << 20))
            except TimeoutError:
                break
        receiver.close()
        thread.join()
    return received * 8 / seconds


def pour(sender: socket.socket, seconds: float) -> None:
    """Send as much as goes."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            sender.send(CHUNK)
    except OSError:
        return


@pytest.mark.parametrize("rate_bps", [1_000_000, 20_000_000])
async def test_a_transfer_is_held_to_the_rate_within_fifteen_percent(start: Start, rate_bps: int) -> None:
    loading, sending = await start(rate_in_bps=rate_bps), await start(rate_out_bps=rate_bps)
    rates = await asyncio.gather(
        asyncio.to_thread(poured, *loading, "in", SECONDS), asyncio.to_thread(poured, *sending, "out", SECONDS)
    )
    assert all(0.85 * rate_bps < measured < 1.15 * rate_bps for measured in rates), rates


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_gigabit_is_held_too(start: Start, direction: str) -> None:
    connected = await start(rate_in_bps=10**9, rate_out_bps=10**9)
    assert await asyncio.to_thread(poured, *connected, direction, 2.0) < 1.15e9


async def test_a_rate_changes_while_traffic_flows(networks: Networks, start: Start) -> None:
    sandbox, endpoint = await start(rate_in_bps=10_000_000)
    flow = asyncio.create_task(asyncio.to_thread(poured, sandbox, endpoint, "in", 4.0))
    await asyncio.sleep(2.0)  # half of the measured time at each rate
    changed = await networks.set_rates(endpoint, rate_in_bps=50_000_000, rate_out_bps=0)
    assert 0.8 * 30_000_000 < await flow < 1.2 * 30_000_000
    assert networks.endpoints(sandbox.container_id) == (changed,)


async def test_a_rate_taken_away_limits_no_more(networks: Networks, start: Start) -> None:
    sandbox, endpoint = await start(rate_in_bps=1_000_000, rate_out_bps=1_000_000)
    await networks.set_rates(endpoint, rate_in_bps=0, rate_out_bps=0)
    for direction in ("in", "out"):
        assert await asyncio.to_thread(poured, sandbox, endpoint, direction, 0.5) > 50_000_000
