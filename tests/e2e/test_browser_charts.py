"""The four live charts of an app's page draw what the app really uses, against its plan's limits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.containers import busy, inside
from tests.e2e.test_rates import download

pytestmark = pytest.mark.e2e

APP = "charted"
MB = 1 << 20
PLAN = {
    "slug": "charted", "name": "Charted", "cpu_millicores": 300, "memory_bytes": 96 * MB, "disk_bytes": 128 * MB, "pids": 64,
    "net_in_bps": 40_000_000, "net_out_bps": 16_000_000,
}  # fmt: skip
READ = (Path(__file__).parent / "charts.js").read_text()
WITHIN_S = 25
PORT = 9000


@dataclass(frozen=True)
class Chart:
    """What charts.js reads."""

    figure: str
    title: str
    limit: int
    values: list[float]
    drawn: list[bool]
    limited: bool


@pytest.fixture(scope="module")
def instance(platform_running: Trial, demo_archive: Path) -> dict[str, str]:
    """The one instance of an app on a plan of its own."""
    assert platform_running.call("POST", "/api/v1/plans", PLAN)[0] == 201
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": PLAN["slug"], "team": "admin"})[0] == 201
    assert platform_running.deploy(APP, demo_archive)[0] == 201
    [one] = platform_running.call("GET", f"/api/v1/apps/{APP}/instances")[1]
    return {"name": one["id"], "host": one["address"].partition(":")[0]}


def becomes(page: Page, kind: str, fits: Callable[[Chart], bool]) -> Chart:
    """Wait until a chart of the open page is as it should be."""
    deadline, chart = time.monotonic() + WITHIN_S, None
    while time.monotonic() < deadline:
        read = page.evaluate(READ, kind)
        chart = Chart(**read) if read else None
        if chart is not None and all(chart.drawn) and chart.limited and fits(chart):
            return chart
        page.wait_for_timeout(200)  # the page's own clock has to go on
    raise AssertionError(f"after {WITHIN_S} s the chart of {kind} is {chart}")


def figure(pattern: str, chart: Chart) -> float:
    """The number that a chart's figure says, NaN where it says something else."""
    found = re.fullmatch(pattern, chart.figure)
    return float(found[1]) if found else float("nan")


def test_cpu_is_drawn_against_the_plans_share(portal: Portal, platform: Trial, instance: dict[str, str]) -> None:
    portal.open_tab(APP)
    hog = "while [ ! -e /tmp/enough ]; do :; done"
    with busy(platform, instance["name"], hog, hog):
        chart = becomes(portal.page, "cpu", lambda c: 75 <= figure(r"([\d.]+) % of 0\.3 core", c) <= 115)
    assert chart.limit == PLAN["cpu_millicores"]
    assert 0.75 * chart.limit <= chart.values[0] <= 1.15 * chart.limit
    becomes(portal.page, "cpu", lambda c: c.values[0] < 0.5 * c.limit)


def test_memory_is_drawn_against_the_plans_memory(portal: Portal, platform: Trial, instance: dict[str, str]) -> None:
    portal.open_tab(APP)
    idle = becomes(portal.page, "memory", lambda c: " of 96 MB" in c.figure)
    assert idle.values[0] < 20 * MB
    hold = (
        "dd if=/dev/zero bs=48M count=1 2>/dev/null | { while [ ! -e /tmp/enough ]; do sleep 1; done; cat >/dev/null; }"
    )
    with busy(platform, instance["name"], hold):
        chart = becomes(portal.page, "memory", lambda c: 48 <= figure(r"([\d.]+) MB of 96 MB", c) <= 96)
    assert chart.limit == PLAN["memory_bytes"]
    assert idle.values[0] + 40 * MB <= chart.values[0] <= chart.limit


def test_disk_is_drawn_against_the_plans_writable_layer(
    portal: Portal, platform: Trial, instance: dict[str, str]
) -> None:
    portal.open_tab(APP)
    idle = becomes(portal.page, "disk", lambda c: " of 128 MB" in c.figure)
    assert idle.values[0] < 20 * MB
    assert (
        inside(platform, instance["name"], "dd if=/dev/zero of=/home/app/full bs=1M count=48 && sync").returncode == 0
    )
    chart = becomes(portal.page, "disk", lambda c: 48 <= figure(r"([\d.]+) MB of 128 MB", c) < 70)
    assert chart.limit == PLAN["disk_bytes"]
    assert chart.values[0] == pytest.approx(idle.values[0] + 48 * MB, abs=2 * MB)


def test_traffic_is_drawn_against_the_plans_rate(portal: Portal, platform: Trial, instance: dict[str, str]) -> None:
    portal.open_tab(APP)
    serve = f"yes 0123456789abcdef | nc -l -p {PORT}"
    says = r"[\d.]+ k?bit/s in ([\d.]+) Mbit/s out"
    with ThreadPoolExecutor(1) as thread, busy(platform, instance["name"], serve):
        thread.submit(download, instance["host"], PORT)
        chart = becomes(portal.page, "network", lambda c: 11 <= figure(says, c) <= 18)
    assert "of 40 Mbit/s in, 16 Mbit/s out" in chart.title
    assert chart.limit == PLAN["net_out_bps"]
    came, went = chart.values
    assert 0 < came < went
    assert 0.7 * chart.limit <= went <= 1.15 * chart.limit
