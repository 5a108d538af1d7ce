"""Stop, start, restart and delete by the buttons: the page shows what happens while it happens, and the address agrees."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Route, WebSocketRoute, expect

from scripts.trial import Trial
from tests.e2e.browser import LIVE_MS, Portal
from tests.e2e.test_kills import supervised

pytestmark = pytest.mark.e2e

HEAD, ROWS = "#head .status", "#instances .second"
WITHIN_S = 30


def live(platform: Trial, app: str, archive: Path) -> str:
    """A new app, live; returns its instance."""
    assert platform.call("POST", "/api/v1/apps", {"app": app, "plan": "nano", "team": "admin"})[0] == 201
    status, answer = platform.deploy(app, archive)
    assert status == 201, answer
    return instance_of(platform, app)


def instance_of(platform: Trial, app: str) -> str:
    """The app's one instance that is healthy."""
    [name] = [i["id"] for i in platform.call("GET", f"/api/v1/apps/{app}/instances")[1] if i["state"] == "healthy"]
    return str(name)


def docker(platform: Trial, *arguments: str) -> str:
    """Ask the engine by the Docker command line."""
    command = ["docker", "-H", f"unix://{platform.engine_socket}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


@contextmanager
def held_request(platform: Trial, app: str, instance: str) -> Iterator[http.client.HTTPConnection]:
    """A request that the app has begun and cannot end before its last byte is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=WITHIN_S)
    connection.putrequest("POST", "/health", skip_host=True)
    for name, value in {"Host": f"{app}.localhost:{platform.port}", "Content-Length": "5"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"last")
    deadline = time.monotonic() + WITHIN_S
    while "{head}" not in (seen := docker(platform, "exec", instance, "ps")):
        assert time.monotonic() < deadline, f"the request did not reach the app: {seen}"
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def held_worker(platform: Trial) -> Iterator[None]:
    """The host's worker does nothing meanwhile, so that what it is to do next stays to be seen."""
    pid = supervised("worker")(platform)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_stop_lets_requests_end_and_the_address_says_stopped(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    instance = live(platform, "stops", demo_archive)
    other = portal.context.new_page()
    other.goto(f"{platform.url}/apps/stops/")
    expect(other.locator(HEAD)).to_have_text("Live")
    portal.open_tab("stops", "settings")
    with held_request(platform, "stops", instance) as request:
        portal.page.get_by_role("button", name="Stop", exact=True).click()
        portal.page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        expect(portal.page.locator(HEAD)).to_have_text("Stopped")
        expect(portal.page.locator(ROWS)).to_have_text(["release 1, draining"], timeout=LIVE_MS)
        expect(portal.page.locator("#deployment h2")).to_have_text("Release 1 is stopped")
        expect(other.locator(HEAD)).to_have_text("Stopped")
        expect(other.locator(ROWS)).to_have_text(["release 1, draining"])
        expect(other.locator("#deployment h2")).to_have_text("Release 1 is stopped")
        status, page = platform.get("stops")
        assert status == 503 and b"is stopped" in page
        request.send(b"!")
        assert request.getresponse().status == 200
    for tab in (portal.page, other):
        expect(tab.locator("#instances")).to_contain_text("Stopped: nothing runs", timeout=LIVE_MS)
    visitor = portal.context.new_page()
    answer = visitor.goto(f"http://stops.localhost:{platform.port}/")
    assert answer is not None and answer.status == 503
    expect(visitor.locator("h1")).to_have_text(re.compile(r"^stops\.localhost\S* is stopped$"))


def test_what_changes_before_a_page_listens_is_seen_all_the_same(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    """Its text is made, then the instance drains, then its line opens: no hint will tell."""
    instance = live(platform, "early", demo_archive)

    def later(line: WebSocketRoute) -> None:
        assert platform.call("POST", "/api/v1/apps/early/stop")[0] in (200, 202, 204)
        deadline = time.monotonic() + WITHIN_S
        while [row["state"] for row in platform.call("GET", "/api/v1/apps/early/instances")[1]] != ["draining"]:
            assert time.monotonic() < deadline
        line.connect_to_server()

    with held_request(platform, "early", instance):
        portal.page.route_web_socket(re.compile("/ws/apps/early/events"), later)
        portal.page.goto(f"{platform.url}/apps/early/")
        expect(portal.page.locator(ROWS)).to_have_text(["release 1, draining"], timeout=LIVE_MS)
        expect(portal.page.locator(HEAD)).to_have_text("Stopped")


def test_a_part_that_was_made_before_a_hint_does_not_swallow_it(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    instance = live(platform, "stale", demo_archive)
    made: list[str] = []

    def slowly(route: Route) -> None:
        answer = route.fetch()
        if not made:
            deadline = time.monotonic() + WITHIN_S
            while [row["state"] for row in platform.call("GET", "/api/v1/apps/stale/instances")[1]] != ["draining"]:
                assert time.monotonic() < deadline
            time.sleep(1)  # of a slow network: the hint overtakes it
        made.append(answer.text())
        route.fulfill(response=answer)

    portal.open_tab("stale")
    expect(portal.page.locator(HEAD)).to_have_text("Live")
    portal.page.route(re.compile("/part/instances"), slowly)
    with held_request(platform, "stale", instance):
        assert platform.call("POST", "/api/v1/apps/stale/stop")[0] in (200, 202, 204)
        expect(portal.page.locator(ROWS)).to_have_text(["release 1, draining"], timeout=LIVE_MS)
    assert "healthy" in made[0]


def test_start_and_restart_show_each_state_and_the_address_answers(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    first = live(platform, "starts", demo_archive)
    assert platform.call("POST", "/api/v1/apps/starts/stop")[0] in (200, 202, 204)
    portal.open_tab("starts")
    expect(portal.page.locator(HEAD)).to_have_text("Stopped")
    with held_worker(platform):
        portal.page.get_by_role("button", name="Start", exact=True).click()
        expect(portal.page.locator("#deployment h2")).to_have_text("Starting release 1")
        expect(portal.page.locator(HEAD)).to_have_text("Deploying")
        assert platform.get("starts")[0] == 503
    portal.wait_for("Release 1 is live")
    expect(portal.page.locator(HEAD)).to_have_text("Live")
    assert platform.get("starts", "/health")[0] == 200
    second = instance_of(platform, "starts")

    with held_worker(platform):
        portal.page.get_by_role("button", name="Restart").click()
        expect(portal.page.locator("#deployment h2")).to_have_text("Restarting release 1")
        expect(portal.page.locator(HEAD)).to_have_text("Deploying")
        assert platform.get("starts", "/health")[0] == 200
    portal.wait_for("Release 1 is live")
    expect(portal.page.locator(ROWS)).to_have_text(["release 1, healthy"], timeout=LIVE_MS)
    assert platform.get("starts", "/health")[0] == 200
    assert len({first, second, instance_of(platform, "starts")}) == 3


def test_delete_asks_for_the_name_and_is_shown_until_nothing_is_left(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    instance = live(platform, "goes", demo_archive)
    other = portal.context.new_page()
    other.goto(f"{platform.url}/apps/goes/")
    portal.open_tab("goes", "settings")
    portal.page.get_by_role("button", name="Delete goes").click()
    dialog = portal.page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Delete for good")).to_be_disabled()
    dialog.get_by_label("to confirm").fill("goes")
    docker(platform, "kill", "--signal", "STOP", instance)  # it cannot end before it goes on
    dialog.get_by_role("button", name="Delete for good").click()
    expect(portal.page.locator("#flash")).to_contain_text("being deleted")
    row = portal.page.locator(".apps > a", has_text="goes")
    expect(row.locator(".status")).to_have_text("Deleting")
    expect(other.locator(HEAD)).to_have_text("Deleting", timeout=LIVE_MS)
    docker(platform, "kill", "--signal", "CONT", instance)
    expect(row).to_have_count(0, timeout=LIVE_MS)
    expect(other).to_have_url(re.compile(r"/teams/admin/$"), timeout=LIVE_MS)
    assert portal.page.request.get(f"{platform.url}/apps/goes/").status == 404
    status, page = platform.get("goes")
    assert status in (404, 410) and b"goes" not in page.replace(b"goes.localhost", b""), page
