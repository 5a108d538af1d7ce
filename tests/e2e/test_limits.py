"""The plan holds, and what is hit is said with its figures; seen from inside the container, from the API and on the app's page."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.containers import busy, inside, kernel_limits

pytestmark = pytest.mark.e2e

APP = "limits"
MB = 1024 * 1024
PLAN_WITHIN_S = 5
HOG = "while [ ! -e /tmp/enough ]; do :; done"
WINDOW_S, WINDOWS = 4.0, 8


@pytest.fixture(scope="module")
def app(platform_running: Trial, demo_archive: Path) -> str:
    """An app on the smallest plan."""
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "nano"})[0] == 201
    status, answer = platform_running.deploy(APP, demo_archive)
    assert status == 201, answer
    return APP


def container(platform: Trial) -> str:
    """Name of the app's container."""
    _, answer = platform.call("GET", f"/api/v1/apps/{APP}/instances")
    return str(next(i["id"] for i in answer if i["state"] == "healthy"))


def limit_events(platform: Trial, kind: str, within_s: float = 6) -> list[dict[str, object]]:
    """Events of one kind, once there are any."""
    deadline = time.monotonic() + within_s
    while True:
        _, answer = platform.call("GET", f"/api/v1/apps/{APP}/limit-events")
        found = [event for event in answer["events"] if event["limit"] == kind]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def await_app(platform: Trial, within_s: float = 15) -> None:
    """Until the app answers."""
    deadline = time.monotonic() + within_s
    while platform.get(APP)[0] != 200:
        assert time.monotonic() < deadline, f"no answer within {within_s:.0f} s"
        time.sleep(0.1)


def test_a_container_sees_itself_only(platform: Trial, app: str) -> None:
    said = inside(
        platform,
        container(platform),
        "cat /proc/self/uid_map; cat /proc/self/cgroup; ls -d /proc/[0-9]* | wc -l; mount -t tmpfs x /tmp 2>&1; hostname",
    ).stdout
    first_map, *rest = said.splitlines()
    assert int(first_map.split()[1]) > 65535
    assert all(line.endswith(":/") for line in rest if ":" in line and line[0].isdigit())
    assert "denied" in said or "not permitted" in said


def test_a_memory_hog_is_killed_and_the_page_says_the_figures(portal: Portal, platform: Trial, app: str) -> None:
    portal.open_tab(app)
    expect(portal.page.locator("[data-log-state]")).to_have_text("following")
    notes = portal.page.locator("#limits .note.bad .strong")
    expect(notes).to_have_count(0)
    assert inside(platform, container(platform), "head -c 300m /dev/zero | tail -c 290m >/dev/null").returncode != 0
    event = limit_events(platform, "memory")[0]
    allowed = platform.call("GET", "/api/v1/plans/nano")[1]["memory_bytes"]
    assert event["allowed"] == allowed
    assert re.search(rf"used [\d.]+ MB of {allowed // MB} MB", str(event["sentence"])), event
    expect(notes).to_have_text([str(event["sentence"])])
    await_app(platform)


def test_a_plan_change_reaches_the_running_container_within_five_seconds(platform: Trial, app: str) -> None:
    plan = platform.call("GET", "/api/v1/plans/nano")[1]
    name = container(platform)
    free_bytes = kernel_limits(platform, name)[2]
    wanted = {"memory_bytes": 96 * MB, "cpu_millicores": 300, "disk_bytes": plan["disk_bytes"] + 64 * MB}
    started = time.monotonic()
    status, answer = platform.call("PATCH", "/api/v1/plans/nano", wanted)
    assert status == 200, answer
    try:
        seen = kernel_limits(platform, name)
        while not (seen[:2] == (96 * MB, 30_000) and seen[2] > free_bytes + 60 * MB):
            assert time.monotonic() - started < PLAN_WITHIN_S, (
                f"after {PLAN_WITHIN_S} s: {seen}, {free_bytes} were free"
            )
            seen = kernel_limits(platform, name)
        assert container(platform) == name
    finally:
        platform.call("PATCH", "/api/v1/plans/nano", {key: plan[key] for key in wanted})


def test_a_cpu_hog_stays_within_a_tenth_of_its_share(platform: Trial, app: str) -> None:
    millicores = platform.call("GET", "/api/v1/plans/nano")[1]["cpu_millicores"]
    name = container(platform)
    shares: list[float] = []
    with busy(platform, name, HOG, HOG):  # two, so that a CPU that something else fills is not the only one tried
        # Never more than the share; less only while something else has the machine, so one undisturbed time is looked for.
        while len(shares) < 2 or (max(shares) < 0.9 and len(shares) < WINDOWS):
            shares.append(cpu_share(platform, name) / millicores)
    assert max(shares) >= 0.9, shares
    assert max(shares) <= 1.1, shares


def cpu_share(platform: Trial, name: str) -> float:
    """Millicores of a container over some seconds, by the kernel's counter and the time it was read at."""
    began, before = cpu_counter(platform, name)
    time.sleep(WINDOW_S)
    ended, after = cpu_counter(platform, name)
    return (after - before) / (ended - began) / 1e6


def cpu_counter(platform: Trial, name: str) -> tuple[float, int]:
    """When a container's CPU time was read (seconds), and what it was (nanoseconds)."""
    command = ["curl", "-sf", "--unix-socket", str(platform.engine_socket), "http://engine/moorage/stats"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    [one] = [found for found in json.loads(done.stdout)["containers"] if found["name"].strip("/") == name]
    return float(one["at"]), int(one["cpu_ns"])
