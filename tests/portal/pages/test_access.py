"""Every page for every kind of person: what they may see, and that nothing fails."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from portal.accounts.models import Team
from portal.plans.models import TeamQuota
from tests.conftest import People
from tests.portal.pages.seed import seed

TEAM_PAGES = (
    "/teams/acme/", "/teams/acme/members", "/teams/acme/images", "/teams/acme/volumes", "/teams/acme/volumes/data",
)  # fmt: skip
APP_PAGES = tuple(
    f"/apps/tide-api/{tab}"
    for tab in (
        "", "part/head", "part/deployment", "part/instances", "part/limits", "deployments", "deployments/3", "releases", "logs", "metrics",
        "instances", "environment", "volumes", "settings",
    )
)  # fmt: skip
DEPLOY_PAGES = ("/apps/tide-api/deploy", "/apps/tide-api/releases/1/rollback")
WRITE_PAGES = ("/teams/acme/new",)
OWN_PAGES = ("/account/", "/account/tokens", "/accounts/password/change/")
OPERATOR_PAGES = (
    "/operator/", "/operator/teams", "/operator/teams/acme", "/operator/users", "/operator/plans", "/operator/plans/new",
    "/operator/plans/small", "/operator/hosts", "/operator/audit", "/operator/storage",
)  # fmt: skip
EVERY_PAGE = (*TEAM_PAGES, *APP_PAGES, *DEPLOY_PAGES, *WRITE_PAGES, *OWN_PAGES, *OPERATOR_PAGES)

pytestmark = pytest.mark.usefixtures("platform")


@pytest.fixture
def platform(people: People, plans: object) -> Team:
    """Team acme with apps in every state, and room for more."""
    TeamQuota.objects.create(
        team=people.team, apps=100, instances=200, cpu_millicores=200_000, memory_bytes=1 << 40, disk_bytes=1 << 42
    )
    return seed(people.owner, team=people.team)


def statuses(client: Client, pages: tuple[str, ...]) -> dict[str, int]:
    return {page: client.get(page).status_code for page in pages}


def without_token(answer: Any) -> str:
    """The page without what is another at each time it is made."""
    return re.sub(r'"X-CSRFToken": "\w+"', "", answer.content.decode())


def all_are(code: int, pages: tuple[str, ...]) -> dict[str, int]:
    return dict.fromkeys(pages, code)


def test_an_owner_sees_every_page_of_the_team(owner: Client) -> None:
    pages = (*TEAM_PAGES, *APP_PAGES, *DEPLOY_PAGES, *WRITE_PAGES, *OWN_PAGES)
    assert statuses(owner, pages) == all_are(200, pages)


def test_a_viewer_looks_at_everything_and_changes_nothing(people: People) -> None:
    viewer = people.client(people.viewer)
    looks = (*TEAM_PAGES, *APP_PAGES, *OWN_PAGES)
    assert statuses(viewer, looks) == all_are(200, looks)
    acts = (*DEPLOY_PAGES, *WRITE_PAGES)
    assert statuses(viewer, acts) == all_are(403, acts)
    posts = (
        "do/start",
        "do/stop",
        "do/restart",
        "do/scale",
        "do/plan",
        "do/delete",
        "environment",
        "settings",
        "deploy",
        "releases/1/rollback",
    )
    assert {name: viewer.post(f"/apps/tide-api/{name}").status_code for name in posts} == dict.fromkeys(posts, 403)


def test_only_the_release_that_serves_is_said_to_be_live(owner: Client) -> None:
    assert "Release 1 was live" in owner.get("/apps/tide-api/deployments/1").content.decode()
    assert "Release 3 is live" in owner.get("/apps/tide-api/deployments/3").content.decode()
    assert "is stopped" in owner.get("/apps/playground/deployments/3").content.decode()


def test_a_developer_deploys_but_configures_nothing(member: Client) -> None:
    assert statuses(member, DEPLOY_PAGES) == all_are(200, DEPLOY_PAGES)
    assert statuses(member, WRITE_PAGES) == all_are(403, WRITE_PAGES)
    assert member.post("/apps/tide-api/settings", {"port": "80"}).status_code == 403


def test_a_stranger_learns_nothing_of_a_team_or_its_apps(stranger: Client) -> None:
    pages = (*TEAM_PAGES, *APP_PAGES, *DEPLOY_PAGES, *WRITE_PAGES)
    assert statuses(stranger, pages) == all_are(404, pages)
    missing, hidden = (without_token(stranger.get(f"/apps/{name}/")) for name in ("no-such-app", "tide-api"))
    assert hidden == missing.replace("no-such-app", "tide-api")


def test_only_an_operator_sees_the_platform_pages(operator: Client, owner: Client) -> None:
    assert statuses(operator, OPERATOR_PAGES) == all_are(200, OPERATOR_PAGES)
    assert statuses(owner, OPERATOR_PAGES) == all_are(403, OPERATOR_PAGES)


def test_whoever_is_signed_out_is_sent_to_the_sign_in_page(client: Client) -> None:
    for page in EVERY_PAGE:
        answer = client.get(page)
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/accounts/login/?next={page}")


def test_pages_load_nothing_from_elsewhere_and_have_no_inline_script_or_style(operator: Client) -> None:
    for page in (*TEAM_PAGES, *APP_PAGES, *DEPLOY_PAGES, *OWN_PAGES, *OPERATOR_PAGES, "/accounts/login/"):
        answer = operator.get(page)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy, page
        text = answer.content.decode()
        assert " style=" not in text and "<style" not in text and "onclick=" not in text, page
        assert "<script>" not in text and "//cdn" not in text, page


@pytest.mark.parametrize(
    "page", ["/teams/acme/", "/apps/tide-api/", "/operator/", "/operator/teams", "/apps/tide-api/deployments"]
)
def test_the_number_of_queries_does_not_grow_with_the_rows(page: str, operator: Client, people: People) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    operator.get(page)
    with CaptureQueriesContext(connection) as before:
        operator.get(page)
    more = tuple((f"more-{n}", "nano", 1, "live") for n in range(6))
    seed(people.owner, team=people.team, apps=more)
    with CaptureQueriesContext(connection) as after:
        operator.get(page)
    assert len(after) == len(before)
    assert len(after) <= 25
