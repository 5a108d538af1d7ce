"""What is held back says so while it is: on the open page and in the API, within five seconds."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.test_browser_running import docker, live

pytestmark = pytest.mark.e2e

APP, WITHIN_S = "tight", 5.0
HOG = "while :; do :; done"
BOMB = "while :; do sleep 30 & done"


def counters(platform: Trial, instance: str) -> tuple[int, bool]:
    """Slices in which the kernel stopped the container, and whether it has as many processes as it may."""
    url = f"http://engine/containers/{instance}/stats?stream=0&one-shot=1"
    ask = ["curl", "-s", "--unix-socket", str(platform.engine_socket), url]
    stats = json.loads(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    pids = stats["pids_stats"]
    return stats["cpu_stats"]["throttling_data"]["throttled_periods"], pids["current"] >= pids["limit"]


def met(platform: Trial, instance: str, before: int) -> float:
    """When the kernel began to hold the container back: beside a browser on two cores that is not at once."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        stopped, full = counters(platform, instance)
        if full or stopped > before:
            return time.monotonic()
        time.sleep(0.05)
    pytest.fail("the limit was never met")


@pytest.mark.parametrize(
    ("limit", "script", "said"),
    [("cpu", HOG, "more than its 0.25 CPU"), ("pids", BOMB, "The limit of 128 processes and threads was reached")],
)
def test_the_page_and_the_api_say_which_limit_is_hit(
    portal: Portal, platform: Trial, demo_archive: Path, limit: str, script: str, said: str
) -> None:
    app = f"{APP}-{limit}"
    instance = live(platform, app, demo_archive)
    portal.open_tab(app, "")
    expect(portal.page.locator("#limits")).not_to_contain_text(said)
    before, _ = counters(platform, instance)
    docker(platform, "exec", "-d", instance, "sh", "-c", script)
    began = met(platform, instance, before)
    expect(portal.page.locator("#limits")).to_contain_text(said, timeout=(WITHIN_S - time.monotonic() + began) * 1000)
    events = platform.call("GET", f"/api/v1/apps/{app}/limit-events")[1]["events"]
    assert time.monotonic() - began < WITHIN_S
    event = next(e for e in events if e["limit"] == limit)
    assert (event["instance"], event["level"]) == (instance, "instance") and said in event["sentence"]
    assert (
        event["allowed"]
        == platform.call("GET", "/api/v1/plans/nano")[1]["pids" if limit == "pids" else "cpu_millicores"]
    )
