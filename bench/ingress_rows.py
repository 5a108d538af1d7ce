"""What the way in costs: requests per second through the ingress beside the container's own address, by wrk, in turn."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.images import asyncio_app, web_server
from bench.rows import Row, p50
from scripts.trial import Trial

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 32


def rate(address: str, host: str) -> float:
    """Requests per second of one run over kept connections; raises when anything but 200 came."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is needed to ask an app by the thousand: install the package wrk.")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", f"Host: {host}", f"http://{address}/health"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    if found is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk at {address} said: {said}")
    return float(found[1])


def in_turn(platform: Trial, app: str, archive: Path) -> tuple[float, float]:
    """An app on a plan that does not hold it back: medians through the ingress and direct, A B A B, after a warm-up each."""
    platform.call("POST", "/api/v1/apps", {"app": app, "plan": "large"})
    status, answer = platform.deploy(app, archive)
    if status != 201:
        raise RuntimeError(f"the deployment answered {status}: {answer}")
    [instance] = platform.call("GET", f"/api/v1/apps/{app}/instances")[1]
    addresses = (f"127.0.0.1:{platform.port}", f"{instance['address'].partition(':')[0]}:8080")
    figures: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for address, found in zip(addresses, figures, strict=True):
            asked = rate(address, f"{app}.localhost:{platform.port}")
            if turn:
                found.append(asked)
    platform.call("POST", f"/api/v1/apps/{app}/stop")
    return p50(figures[0]), p50(figures[1])


def rows(platform: Trial, folder: Path) -> Iterator[Row]:
    """A small app; and a server so quick that client, ingress and server share the cores by what a proxy costs at all.

    A HAProxy without one rule in front of that server reaches 0.41 where all three run on two cores.
    """
    for name, archive, budget in (
        ("asyncio app", asyncio_app(folder), 0.6),
        ("server of two bytes", web_server(folder), 0.25),
    ):
        through, direct = in_turn(platform, name.split()[0], archive)
        told = f"requests through the ingress, beside direct: {name}"
        yield Row(name=told, value=through, peer=direct, unit="requests/s", budget=budget, ratio=True, at_least=True)
