"""Every role against every verb, by session and by token, and what each door answers."""

from __future__ import annotations

import json
from itertools import product

import pytest
from django.test import Client

from portal.accounts.access import can, get_team
from portal.accounts.actor import SYSTEM, Actor
from portal.errors import Forbidden, NotFound
from portal.hosting.access import get_app, visible_apps
from portal.hosting.models import App
from tests.conftest import People

pytestmark = pytest.mark.django_db

ALLOWED = {
    "owner": {"read", "deploy", "write", "admin"},
    "maintainer": {"read", "deploy", "write"},
    "developer": {"read", "deploy"},
    "viewer": {"read"},
    "stranger": set(),
    "operator": {"read", "deploy", "write", "admin", "operate"},
}
VERBS = ("read", "deploy", "write", "admin", "operate")
REACH = {
    "read": {"read"},
    "deploy": {"read", "deploy"},
    "write": {"read", "deploy", "write", "admin"},
    "operator": {"read", "deploy", "write", "admin", "operate"},
}


@pytest.mark.parametrize(("who", "verb"), list(product(ALLOWED, VERBS)))
def test_a_session_may_what_its_role_may(people: People, who: str, verb: str) -> None:
    actor = Actor(user=getattr(people, who), door="page")
    assert can(actor, verb, people.team) is (verb in ALLOWED[who])  # type: ignore[arg-type]


@pytest.mark.parametrize(("who", "scope", "verb"), list(product(ALLOWED, REACH, VERBS)))
def test_a_token_may_what_role_and_scope_both_allow(people: People, who: str, scope: str, verb: str) -> None:
    user = getattr(people, who)
    own = {"stranger": None, "operator": None}.get(who, people.team.pk)
    actor = Actor(user=user, door="api", scopes=frozenset({scope}), team_id=own)
    allowed = ALLOWED[who] & REACH[scope]
    if who == "operator" and scope != "operator":
        allowed = set()  # his rights beyond his own team need the scope operator
    assert can(actor, verb, people.team) is (verb in allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("who", "verb"), list(product(ALLOWED, ("read", "deploy", "write"))))
def test_loading_an_app_answers_404_to_strangers_and_403_to_members_without_the_right(
    people: People, app: App, who: str, verb: str
) -> None:
    actor = Actor(user=getattr(people, who), door="page")
    if verb in ALLOWED[who]:
        assert get_app(actor, "hello", verb) == app  # type: ignore[arg-type]
        return
    with pytest.raises(NotFound if who == "stranger" else Forbidden) as refused:
        get_app(actor, "hello", verb)  # type: ignore[arg-type]
    if who != "stranger":
        assert f"You are a {who} in team acme" in refused.value.message
        assert refused.value.hint


def test_a_missing_app_and_a_foreign_one_look_the_same(people: People, app: App) -> None:
    actor = Actor(user=people.stranger, door="api")
    texts = []
    for slug in ("hello", "hollo"):
        with pytest.raises(NotFound) as refused:
            get_app(actor, slug)
        texts.append((refused.value.message.replace(slug, "X"), refused.value.hint))
    assert texts[0] == texts[1]


def test_a_token_of_one_app_sees_no_other(people: People, app: App) -> None:
    actor = Actor(user=people.owner, door="api", team_id=people.team.pk, app_slug="other")
    with pytest.raises(NotFound):
        get_app(actor, "hello")
    assert not visible_apps(actor).exists()


def test_a_token_is_held_to_its_team(people: People, app: App) -> None:
    elsewhere = Actor(user=people.owner, door="api", team_id=people.team.pk + 1000)
    with pytest.raises(NotFound):
        get_app(elsewhere, "hello")
    with pytest.raises(NotFound):
        get_team(elsewhere, "acme")


def test_an_inactive_person_may_nothing(people: People) -> None:
    people.operator.is_active = False
    people.owner.is_active = False
    for user in (people.operator, people.owner):
        assert not can(Actor(user=user, door="page"), "read", people.team)


def test_the_platform_itself_may_everything(people: People) -> None:
    assert all(can(SYSTEM, verb, people.team) for verb in VERBS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("who", "create", "start", "read"),
    [
        ("owner", 201, 409, 200),
        ("maintainer", 201, 409, 200),
        ("developer", 403, 409, 200),
        ("viewer", 403, 403, 200),
        ("stranger", 404, 404, 404),
        ("operator", 201, 409, 200),
    ],
)
def test_the_api_answers_each_role_by_token(
    people: People, app: App, who: str, create: int, start: int, read: int
) -> None:
    token = people.token(getattr(people, who), "operator" if who == "operator" else "write")
    client = Client(headers={"Authorization": f"Bearer {token}"})
    body = json.dumps({"app": "second", "team": "acme"})
    assert client.post("/api/v1/apps", body, content_type="application/json").status_code == create
    assert client.post("/api/v1/apps/hello/start").status_code == start
    assert client.get("/api/v1/apps/hello").status_code == read
    assert len(client.get("/api/v1/apps").json()["items"]) == (0 if who == "stranger" else 2 if create == 201 else 1)
