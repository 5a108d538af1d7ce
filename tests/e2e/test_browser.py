"""A person brings an image to life in the browser, watches it, changes it and removes it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from scripts.trial import Trial
from tests.e2e.browser import Portal

pytestmark = pytest.mark.e2e


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
