"""What is held back says so while it is: on the open page and in the API, within five seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.test_browser_running import docker, live

pytestmark = pytest.mark.e2e

APP, WITHIN_S = "tight", 5.0
BOMB = "while :; do sleep 30 & done"


@pytest.mark.parametrize(
    ("limit", "script", "said"),
    [("pids", BOMB, "The limit of 128 processes and threads was reached")],
)
def test_the_page_and_the_api_say_which_limit_is_hit(
    portal: Portal, platform: Trial, demo_archive: Path, limit: str, script: str, said: str
) -> None:
    app = f"{APP}-{limit}"
    instance = live(platform, app, demo_archive)
    portal.open_tab(app, "")
    expect(portal.page.locator("#limits")).not_to_contain_text(said)
    began = time.monotonic()
    docker(platform, "exec", "-d", instance, "sh", "-c", script)
    expect(portal.page.locator("#limits")).to_contain_text(said, timeout=(WITHIN_S - time.monotonic() + began) * 1000)
    events = platform.call("GET", f"/api/v1/apps/{app}/limit-events")[1]["events"]
    assert time.monotonic() - began < WITHIN_S
    event = next(e for e in events if e["limit"] == limit)
    assert (event["instance"], event["level"]) == (instance, "instance") and said in event["sentence"]
    assert event["allowed"] == platform.call("GET", "/api/v1/plans/nano")[1]["pids"]
