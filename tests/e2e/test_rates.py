"""Ten seconds of download from an app are held to its plan's rate."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from scripts.trial import Trial

pytestmark = pytest.mark.e2e

APP = "rates"
RATE_BPS = 16_000_000
SECONDS = 10


@pytest.fixture(scope="module")
def app(platform_running: Trial, demo_archive: Path) -> str:
    """An app on a plan of 16 Mbit/s out."""
    plan = platform_running.call("GET", "/api/v1/plans/nano")[1]
    slow = {
        key: value for key, value in plan.items() if key.endswith(("_bytes", "_bps", "_iops", "millicores", "pids"))
    }
    status, answer = platform_running.call(
        "POST", "/api/v1/plans", slow | {"slug": "slow", "name": "Slow", "net_out_bps": RATE_BPS}
    )
    assert status == 201, answer
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "slow"})[0] == 201
    status, answer = platform_running.deploy(APP, demo_archive)
    assert status == 201, answer
    return APP


def test_a_download_of_ten_seconds_is_held_to_the_plans_rate(platform: Trial, app: str) -> None:
    instance = platform.call("GET", f"/api/v1/apps/{app}/instances")[1][0]
    serve = ["exec", instance["id"], "sh", "-c", "yes 0123456789abcdef | nc -l -p 9000"]
    server = subprocess.Popen(["docker", "-H", f"unix://{platform.engine_socket}", *serve], stdin=subprocess.DEVNULL)
    try:
        got, seconds = download(instance["address"].partition(":")[0], 9000)
    finally:
        server.kill()
        server.wait()
    rate = got * 8 / seconds
    assert 0.85 * RATE_BPS <= rate <= 1.15 * RATE_BPS, f"{rate / 1e6:.1f} Mbit/s"


def download(host: str, port: int) -> tuple[int, float]:
    """Read for ten seconds, the first burst not counted: bytes and seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=5)
            break
        except OSError:
            assert time.monotonic() < deadline, f"{host}:{port} does not answer"
            time.sleep(0.05)
    with connection:
        began = time.monotonic()
        while time.monotonic() - began < 1:
            connection.recv(1 << 16)
        got, began = 0, time.monotonic()
        while (seconds := time.monotonic() - began) < SECONDS:
            got += len(connection.recv(1 << 16))
    return got, seconds
