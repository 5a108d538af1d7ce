"""A person brings an image to life in the browser, watches it, changes it and removes it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from scripts.trial import Trial
from tests.e2e.browser import LIVE_MS, Portal, chromium

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the module."""
    with chromium() as started:
        yield started


@pytest.fixture
def portal(browser: Browser, platform: Trial) -> Iterator[Portal]:
    """The operator, signed in."""
    portal = Portal(browser, platform.url)
    portal.sign_in("admin", platform.password)
    expect(portal.page).to_have_url(re.compile(r"/teams/admin/$"))
    yield portal
    portal.close()


def uploaded(portal: Portal, app: str, archive: Path) -> None:
    """A new app, live."""
    portal.new_app("admin", app)
    portal.choose_image(archive)
    portal.image_says()
    portal.deploy()
    portal.wait_for(re.compile(r"Release 1 is live"))


def test_a_wrong_password_is_refused_with_a_sentence(browser: Browser, platform: Trial) -> None:
    portal = Portal(browser, platform.url)
    portal.sign_in("admin", "not the password")
    expect(portal.page.get_by_role("alert")).to_contain_text("not correct")
    portal.close()


def test_an_image_dropped_in_the_browser_is_live_and_watched(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    portal.new_app("admin", "by-hand")
    expect(portal.page.locator("#slug-hint")).to_contain_text("by-hand.localhost")
    portal.choose_image(demo_archive)
    says = portal.image_says()
    assert "/app/serve" in says["Command"] and says["Port"].startswith("8080") and says["User"].startswith("1000")
    portal.deploy()
    portal.wait_for("Release 1 is live")
    for step in ("Queued", "Pulling", "Starting", "Checking", "Switching", "Live"):
        expect(portal.page.locator(".steps .done", has_text=step)).to_be_visible()

    visitor = portal.context.new_page()
    answer = visitor.goto(f"http://by-hand.localhost:{platform.port}/seen-in-the-log")
    assert answer is not None and answer.status < 500
    expect(portal.page.locator(".log")).to_contain_text("seen-in-the-log", timeout=10_000)
    expect(portal.page.locator("[data-chart=memory] [data-figure]")).to_contain_text("of 512 MB", timeout=20_000)
    expect(portal.page.locator("#head .status")).to_have_text("Live")
    assert portal.complaints == []


def test_a_paused_log_holds_still_and_catches_up(portal: Portal, platform: Trial, demo_archive: Path) -> None:
    uploaded(portal, "pauses", demo_archive)
    portal.page.get_by_role("button", name="Pause").click()
    platform.get("pauses", "/while-paused")
    expect(portal.page.locator("[data-log-state]")).to_contain_text("new", timeout=10_000)
    assert "while-paused" not in portal.log_lines()
    portal.page.get_by_role("button", name="Follow").click()
    expect(portal.page.locator(".log")).to_contain_text("while-paused")


def test_an_upload_goes_on_after_a_reload_where_it_stopped(portal: Portal, tmp_path: Path) -> None:
    from tests.e2e.conftest import build_demo

    archive = build_demo(tmp_path / "large.tar", "--size-mb", "48")
    portal.new_app("admin", "resumed")
    link = portal.context.new_cdp_session(portal.page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 10 << 20}
    link.send("Network.enable")
    link.send("Network.emulateNetworkConditions", slow)
    portal.choose_image(archive)
    expect(portal.page.locator("[x-text=progress]")).to_contain_text("MB/s", timeout=15_000)
    portal.page.get_by_role("button", name="Pause").click()
    expect(portal.page.locator("[x-text=progress]")).to_contain_text("paused")
    portal.page.reload()
    expect(portal.page.get_by_text("An upload is waiting")).to_be_visible()

    offsets: list[str] = []
    portal.page.on("request", lambda r: offsets.append(r.headers["upload-offset"]) if r.method == "PATCH" else None)
    link.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    portal.choose_image(archive)
    assert portal.image_says()["Image"].startswith("hello")
    assert int(offsets[0]) > 0


def test_a_file_that_is_no_image_is_refused_in_words(portal: Portal, tmp_path: Path) -> None:
    nonsense = tmp_path / "notes.tar"
    nonsense.write_bytes(b"these are notes, not an image\n" * 400)
    portal.new_app("admin", "nonsense")
    portal.choose_image(nonsense)
    expect(portal.page.locator(".note.bad")).to_be_visible(timeout=15_000)
    assert len(portal.page.locator(".note.bad").inner_text()) > 20


def test_a_name_that_cannot_be_an_address_is_refused_before_the_upload(portal: Portal, demo_archive: Path) -> None:
    portal.new_app("admin", "Not A Name")
    portal.choose_image(demo_archive)
    expect(portal.page.locator("#trouble-slug")).to_contain_text("Capital letters")
    expect(portal.page.locator(".drop")).to_be_visible()


def test_the_page_catches_up_when_its_scripts_come_late_and_a_part_is_lost(portal: Portal, demo_archive: Path) -> None:
    lost: list[str] = []

    def late(route: Route) -> None:
        time.sleep(3)  # of a slow network: the deployment is over before the page's last script is there
        route.continue_()

    def lose_first(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.abort()

    portal.page.route(re.compile(r"/charts[^/]*\.js"), late)
    portal.page.route(re.compile(r"/part/deployment"), lose_first)
    uploaded(portal, "late", demo_archive)
    assert lost


def test_variables_are_masked_and_reach_the_app(portal: Portal, platform: Trial, demo_archive: Path) -> None:
    uploaded(portal, "with-env", demo_archive)
    portal.open_tab("with-env", "environment")
    portal.page.get_by_label("Paste it").fill("GREETING='hello from the browser'\n# a comment\nEMPTY=")
    portal.page.get_by_role("button", name="Import").click()
    expect(portal.page.locator(".envs")).to_contain_text("GREETING")
    assert "hello from the browser" not in portal.page.content()
    portal.open_tab("with-env")
    portal.wait_for("Release 2 is live")
    assert b"hello from the browser" in platform.get("with-env", "/env")[1]


def test_a_crash_says_why_and_rolling_back_shows_the_difference(
    portal: Portal, platform: Trial, demo_archive: Path, crashing_archive: Path
) -> None:
    uploaded(portal, "rolls", demo_archive)
    portal.open_tab("rolls", "environment")
    portal.page.get_by_label("Name").fill("STEP")
    portal.page.get_by_label("Value").fill("two")
    portal.page.get_by_role("button", name="Add").click()
    portal.open_tab("rolls")
    portal.wait_for("Release 2 is live")

    portal.open_tab("rolls", "deploy")
    portal.choose_image(crashing_archive)
    portal.image_says()
    portal.deploy()
    portal.wait_for("Deployment 3 failed")
    expect(portal.page.locator("#deployment .note")).to_contain_text("3")
    expect(portal.page.locator("#deployment")).to_contain_text("Release 2 keeps serving")
    assert platform.get("rolls", "/health")[0] == 200

    portal.open_tab("rolls", "releases")
    portal.page.get_by_role("button", name="Roll back").click()
    dialog = portal.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Roll back to release 1?")
    expect(dialog.locator(".diff")).to_contain_text("STEP, removed")
    dialog.locator("button[type=submit]").click()
    portal.wait_for("Release 1 is live")
    assert b"STEP" not in platform.get("rolls", "/env")[1]


def test_the_list_of_apps_follows_a_deployment_of_a_pipeline(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    assert platform.call("POST", "/api/v1/apps", {"app": "listed", "plan": "nano", "team": "admin"})[0] == 201
    portal.page.goto(f"{platform.url}/teams/admin/")
    row = portal.page.locator(".apps > a", has_text="listed")
    expect(row.locator(".status")).to_have_text("Nothing deployed")
    assert platform.deploy("listed", demo_archive)[0] == 201
    expect(row.locator(".status")).to_have_text("Live", timeout=10_000)


KERNEL_LIMITS = """
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1
cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu*/cpu.cfs_quota_us 2>/dev/null | head -n 1 | cut -d ' ' -f 1
df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4
"""


def kernel_limits(platform: Trial, instance: str) -> tuple[int, int, int]:
    """Memory (bytes), CPU (microseconds in 100 ms) and free disk (bytes) as the running container itself sees them."""
    command = ["docker", "-H", f"unix://{platform.engine_socket}", "exec", instance, "sh", "-c", KERNEL_LIMITS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    memory, quota, free_kib = (int(figure) for figure in said)
    return memory, quota, free_kib * 1024


def test_a_plan_changed_on_its_page_reaches_the_running_container_within_five_seconds(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    assert platform.call("POST", "/api/v1/apps", {"app": "follows", "plan": "nano", "team": "admin"})[0] == 201
    assert platform.deploy("follows", demo_archive)[0] == 201
    before = platform.call("GET", "/api/v1/plans/nano")[1]
    [instance] = [i["id"] for i in platform.call("GET", "/api/v1/apps/follows/instances")[1]]
    _, _, free_bytes = kernel_limits(platform, instance)
    portal.page.goto(f"{platform.url}/operator/plans/nano")
    portal.page.get_by_label("CPU", exact=True).fill("0.35")
    portal.page.get_by_label("Memory", exact=True).fill("112")
    portal.page.get_by_label("Writable layer").fill(f"{(before['disk_bytes'] + (64 << 20)) / (1 << 30):.3f}")
    try:
        saved = time.monotonic()
        portal.page.get_by_role("button", name="Save as version").click()
        seen = kernel_limits(platform, instance)
        while not (seen[:2] == (112 << 20, 35_000) and seen[2] > free_bytes + (60 << 20)):
            assert time.monotonic() - saved < 5, f"after 5 s: {seen}, before: {free_bytes} free"
            seen = kernel_limits(platform, instance)
        [still] = platform.call("GET", "/api/v1/apps/follows/instances")[1]
        assert (still["id"], still["state"]) == (instance, "healthy")
    finally:
        kept = ("cpu_millicores", "memory_bytes", "disk_bytes")
        platform.call("PATCH", "/api/v1/plans/nano", {name: before[name] for name in kept})


def test_deleting_asks_for_the_name(portal: Portal, platform: Trial, demo_archive: Path) -> None:
    uploaded(portal, "goes", demo_archive)
    portal.open_tab("goes", "settings")
    portal.page.get_by_role("button", name="Delete goes").click()
    dialog = portal.page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Delete for good")).to_be_disabled()
    dialog.get_by_label("to confirm").fill("goes")
    dialog.get_by_role("button", name="Delete for good").click()
    expect(portal.page.locator("#flash")).to_contain_text("being deleted")
    portal.page.wait_for_function("async () => (await fetch('/apps/goes/')).status === 404", timeout=LIVE_MS)


def test_a_phone_has_the_menu_by_keyboard_and_nothing_wider_than_its_screen(browser: Browser, platform: Trial) -> None:
    portal = Portal(browser, platform.url, width=390, height=844)
    portal.sign_in("admin", platform.password)
    menu = portal.page.get_by_role("button", name="Menu")
    menu.focus()
    portal.page.keyboard.press("Enter")
    expect(portal.page.locator("#drawer").get_by_role("link", name="Plans")).to_be_visible()
    portal.page.keyboard.press("Escape")
    expect(portal.page.locator("#drawer")).to_be_hidden()
    for path in (
        "/teams/admin/",
        "/teams/admin/new",
        "/operator/",
        "/operator/teams",
        "/operator/plans/small",
        "/account/tokens",
    ):
        portal.page.goto(platform.url + path)
        assert portal.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    portal.close()
