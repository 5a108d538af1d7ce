"""A live log line's way from the container to the browser: 50 viewers' websockets at 5,000 lines a second."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from bench.images import LISTENS, printing
from bench.log_source import LINES_PER_S
from bench.rows import Row, percentile
from scripts.state import ROOT
from scripts.trial import Trial

APP = "prints"
VIEWERS = 50
SECONDS = 10.0
LAST_S = 3.0  # a line that takes longer is missed
SETTLED_LINES = 2 * LINES_PER_S  # the first ones are not counted
PLAN = {"slug": "talks", "cpu_millicores": 1000, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20}

type Message = tuple[float, str | bytes]


async def watch(url: str, options: dict[str, Any], connected: asyncio.Semaphore, over: asyncio.Event) -> list[Message]:
    """One viewer's messages with the time each came at; they are read when all is over, so that reading costs nobody."""
    found: list[Message] = []
    async with connect(url, **options) as socket:
        await socket.recv()
        connected.release()
        stop = asyncio.create_task(over.wait())
        stop.add_done_callback(lambda _: asyncio.ensure_future(socket.close()))
        async for message in socket:
            found.append((time.time(), message))
    return found


async def watched(platform: Trial, address: str) -> list[list[Message]]:
    """What 50 viewers get while the source sends."""
    url = f"ws://localhost:{platform.port}/ws/apps/{APP}/logs"
    headers = {"Authorization": f"Bearer {platform.token}"}
    options = {"host": "127.0.0.1", "port": platform.port, "additional_headers": headers, "max_size": None}
    connected, over = asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.timeout(60 + SECONDS), asyncio.TaskGroup() as group:
        viewers = [group.create_task(watch(url, options, connected, over)) for _ in range(VIEWERS)]
        for _ in viewers:
            await connected.acquire()
        command = [sys.executable, "-m", "bench.log_source", address, str(LISTENS), str(SECONDS)]
        source = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.DEVNULL)
        if await source.wait():
            raise RuntimeError(f"the source of lines ended with {source.returncode}")
        await asyncio.sleep(LAST_S)
        over.set()
    return [viewer.result() for viewer in viewers]


def delays(messages: list[Message]) -> tuple[list[float], int]:
    """Seconds from sending to arrival of each line after the first ones, and how many lines came at all."""
    found, count = [], 0
    for came, message in messages:
        for _, _, tag, text in json.loads(message):
            stamp, number, *_ = text.split(" ", 2)
            if tag != "m" and number.isdecimal():
                count += 1
                if int(number) >= SETTLED_LINES:
                    found.append(came - float(stamp))
    return found, count


def rows(platform: Trial, folder: Path) -> Iterator[Row]:
    """Every viewer gets every line; their delays are one list."""
    platform.call("POST", "/api/v1/plans", PLAN | {"log_bytes_per_s": 10_000_000})
    platform.call("POST", "/api/v1/apps", {"app": APP, "plan": PLAN["slug"]})
    status, answer = platform.deploy(APP, printing(folder))
    if status != 201:
        raise RuntimeError(f"the deployment answered {status}: {answer}")
    [instance] = platform.call("GET", f"/api/v1/apps/{APP}/instances")[1]
    taken = [delays(found) for found in uvloop.run(watched(platform, instance["address"].partition(":")[0]))]
    platform.call("POST", f"/api/v1/apps/{APP}/stop")
    fewest, most = min(count for _, count in taken), max(count for _, count in taken)
    every = [delay for found, _ in taken for delay in found]
    name = f"live log line, container to browser, p95 at {LINES_PER_S} lines/s and {VIEWERS} viewers"
    note = (
        f"{fewest / SECONDS:.0f} lines/s at the slowest viewer" if fewest == most else f"{most - fewest} lines missed"
    )
    yield Row(name=name, value=1000 * percentile(every, 0.95), unit="ms", budget=150, note=note)
