"""People and teams: made by the operator's pages or by manage.py, each may what the role allows, by page and by REST."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from scripts.trial import Trial
from tests.e2e.browser import Portal

pytestmark = pytest.mark.e2e

PASSWORD = "harbour-lamp-at-night-9"


@contextmanager
def signed_in(browser: Browser, platform: Trial, user: str) -> Iterator[Portal]:
    """A person's own browser."""
    portal = Portal(browser, platform.url)
    portal.sign_in(user, PASSWORD)
    expect(portal.page).to_have_url(re.compile(r"/teams/[-a-z]+/$"))
    yield portal
    portal.close()


def new_user(portal: Portal, name: str) -> None:
    """By the operator's page."""
    portal.page.goto(f"{portal.url}/operator/users")
    portal.page.get_by_label("Username").fill(name)
    portal.page.get_by_label("E-mail").fill(f"{name}@example.org")
    portal.page.get_by_label("Password", exact=True).fill(PASSWORD)
    portal.page.get_by_role("button", name="Create the user").click()
    expect(portal.page.locator(".person", has_text=name)).to_be_visible()


def live(platform: Trial, team: str, archive: Path) -> str:
    """An app of the team, live; returns its name."""
    app = f"of-{team}"
    assert platform.call("POST", "/api/v1/apps", {"app": app, "plan": "nano", "team": team})[0] == 201
    assert platform.deploy(app, archive)[0] == 201
    return app


def deploys_by_rest(platform: Trial, user: str, app: str, archive: Path) -> tuple[int, str]:
    """A deployment with the person's own token, scope deploy: status and what was said."""
    token = platform.manage("token", "--user", user, "--scopes", "read,deploy").split()[-1]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"}
    with archive.open("rb") as file:
        status, answer = platform.call("POST", f"/api/v1/apps/{app}/deployments?wait=60", file, headers)
    return status, str(answer.get("detail", ""))


def looks_and_cannot_deploy(browser: Browser, platform: Trial, viewer: str, app: str, archive: Path) -> None:
    """A viewer sees the app live, is offered nothing that changes it, and is refused where he goes all the same."""
    with signed_in(browser, platform, viewer) as portal:
        portal.page.locator(".apps > a", has_text=app).click()
        expect(portal.page.locator("#head .status")).to_have_text("Live")
        expect(portal.page.locator("[data-log-state]")).to_have_text("following")
        offered = portal.page.locator("main").get_by_role("button", name=re.compile("Restart|Stop|Start|Cancel"))
        expect(offered).to_have_count(0)
        expect(portal.page.locator("main").get_by_role("link", name="Deploy", exact=True)).to_have_count(0)
        answer = portal.page.goto(f"{platform.url}/apps/{app}/deploy")
        assert answer is not None and answer.status == 403
        expect(portal.page.locator("main")).to_contain_text("developer")
        assert portal.page.goto(f"{platform.url}/operator/users").status == 403  # type: ignore[union-attr]
    status, said = deploys_by_rest(platform, viewer, app, archive)
    assert status == 403 and "developer" in said


def test_people_and_a_team_made_by_the_operators_pages_may_what_their_roles_allow(
    portal: Portal, browser: Browser, platform: Trial, demo_archive: Path
) -> None:
    new_user(portal, "olga")
    new_user(portal, "vera")
    portal.page.goto(f"{platform.url}/operator/teams")
    portal.page.get_by_label("Name", exact=True).fill("Harbour Lab")
    portal.page.get_by_label("Short name").fill("harbour-lab")
    portal.page.get_by_label("Owner").select_option("olga")
    portal.page.get_by_role("button", name="Create the team").click()
    expect(portal.page.locator("h1")).to_have_text("Harbour Lab")
    portal.page.get_by_label("Person").select_option("vera")
    portal.page.get_by_label("Role").select_option("viewer")
    portal.page.get_by_role("button", name="Add", exact=True).click()
    expect(portal.page.locator("#flash")).to_contain_text("vera is in Harbour Lab now")

    app = live(platform, "harbour-lab", demo_archive)
    looks_and_cannot_deploy(browser, platform, "vera", app, demo_archive)
    with signed_in(browser, platform, "olga") as owner:
        owner.open_tab(app)
        owner.page.get_by_role("link", name="Deploy", exact=True).click()
        owner.choose_image(demo_archive)
        owner.image_says()
        owner.deploy()
        owner.wait_for("Release 2 is live")


def test_people_and_a_team_made_by_manage_py_may_what_their_roles_allow(
    browser: Browser, platform: Trial, demo_archive: Path
) -> None:
    platform.environment["MOORAGE_PASSWORD"] = PASSWORD
    try:
        for name in ("otto", "viktor", "dana"):
            platform.manage("adduser", name, "--email", f"{name}@example.org")
    finally:
        del platform.environment["MOORAGE_PASSWORD"]
    platform.manage("addteam", "nordwind", "--name", "Nordwind", "--owner", "otto")
    platform.manage("addmember", "nordwind", "viktor", "--role", "viewer")
    platform.manage("addmember", "nordwind", "dana", "--role", "developer")

    app = live(platform, "nordwind", demo_archive)
    looks_and_cannot_deploy(browser, platform, "viktor", app, demo_archive)
    assert deploys_by_rest(platform, "dana", app, demo_archive)[0] == 201
