"""Making and ending people, teams, memberships and tokens."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from portal.accounts import actions
from portal.accounts.access import actor_of_headers, actor_of_token
from portal.accounts.actor import SYSTEM, Actor
from portal.accounts.models import ApiToken, Membership, User
from portal.audit.models import Entry
from portal.errors import Conflict, Forbidden, Invalid, Unauthenticated
from tests.conftest import People

pytestmark = pytest.mark.django_db


def test_only_operators_make_people_and_teams(people: People) -> None:
    owner = Actor(user=people.owner, door="page")
    with pytest.raises(Forbidden):
        actions.create_user(owner, username="eve", email="eve@example.org", password="long-enough-77")
    with pytest.raises(Forbidden):
        actions.create_team(owner, slug="eves")
    operator = Actor(user=people.operator, door="page")
    actions.create_user(operator, username="eve", email="eve@example.org", password="long-enough-77")
    entry = Entry.objects.get(verb="create", object_name="eve")
    assert entry.user == people.operator
    assert "long-enough" not in str(entry.details)


@pytest.mark.parametrize(
    ("name", "email", "password"),
    [
        ("eve", "nonsense", "long-enough-77"),
        ("eve", "e@example.org", "short"),
        ("Eve!", "e@example.org", "long-enough-77"),
    ],
)
def test_bad_names_addresses_and_passwords_are_refused(people: People, name: str, email: str, password: str) -> None:
    with pytest.raises(Invalid):
        actions.create_user(SYSTEM, username=name, email=email, password=password)


def test_the_last_owner_stays(people: People) -> None:
    row = Membership.objects.get(user=people.owner, team=people.team)
    with pytest.raises(Conflict, match="last owner"):
        actions.remove_member(SYSTEM, row)
    with pytest.raises(Conflict, match="last owner"):
        actions.change_role(SYSTEM, row, "viewer")


def test_a_token_dies_with_its_membership(people: People) -> None:
    secret = people.token(people.developer, "deploy")
    assert actor_of_token(secret).user == people.developer
    actions.remove_member(SYSTEM, Membership.objects.get(user=people.developer, team=people.team))
    with pytest.raises(Unauthenticated):
        actor_of_token(secret)


def test_only_the_digest_of_a_token_is_kept(people: People) -> None:
    secret = people.token(people.owner, "read")
    row = ApiToken.objects.get(membership__user=people.owner)
    assert secret not in (row.digest, row.prefix, row.name)
    assert secret.startswith(row.prefix)


def test_an_operator_scope_needs_an_operator(people: People) -> None:
    with pytest.raises(Forbidden):
        people.token(people.owner, "operator")


def test_an_owner_ends_a_members_token_and_a_member_does_not_end_the_owners(people: People) -> None:
    people.token(people.developer, "read")
    people.token(people.owner, "read")
    theirs = ApiToken.objects.get(membership__user=people.developer)
    mine = ApiToken.objects.get(membership__user=people.owner)
    with pytest.raises(Forbidden):
        actions.revoke_token(Actor(user=people.developer, door="page"), mine)
    actions.revoke_token(Actor(user=people.owner, door="page"), theirs)
    assert ApiToken.objects.count() == 1


def test_raw_doors_know_a_session_and_ask_for_its_csrf_token(people: People, owner: Client) -> None:
    cookie = f"sessionid={owner.cookies['sessionid'].value}"
    assert actor_of_headers({"cookie": cookie, "host": "localhost"}, method="GET", door="page").user == people.owner
    with pytest.raises(Forbidden):
        actor_of_headers({"cookie": cookie, "host": "localhost"}, method="POST")
    csrf = "a" * 32
    headers = {"cookie": f"{cookie}; csrftoken={csrf}", "host": "localhost", "x-csrftoken": csrf}
    assert actor_of_headers(headers, method="POST").user == people.owner
    with pytest.raises(Unauthenticated):
        actor_of_headers({"host": "localhost"}, method="GET")


def test_people_sign_in_by_name_or_by_address_and_nobody_signs_up(people: People) -> None:
    for login in ("olga", "olga@example.org"):
        client = Client()
        answer = client.post("/accounts/login/", {"login": login, "password": "olga-pass-word-1"})
        assert answer.status_code == 302, answer.content
        assert "_auth_user_id" in client.session
    new = {"username": "eve", "email": "eve@example.org", "password1": "long-enough-77", "password2": "long-enough-77"}
    Client().post("/accounts/signup/", new)
    assert not User.objects.filter(username="eve").exists()


def test_ten_wrong_passwords_lock_the_name_from_that_address(people: People) -> None:
    client = Client()
    for _ in range(10):
        client.post("/accounts/login/", {"login": "olga", "password": "wrong"})
    locked = client.post("/accounts/login/", {"login": "olga", "password": "olga-pass-word-1"})
    assert locked.status_code == 429
    assert "_auth_user_id" not in client.session


def test_the_commands_add_people_and_print_a_token_as_the_last_word(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_PASSWORD", "long-enough-77")
    out = StringIO()
    call_command("adduser", "eve", email="eve@example.org", stdout=out)
    call_command("addteam", "eves", owner="eve", stdout=out)
    call_command("addmember", "acme", "eve", role="viewer", stdout=out)
    with pytest.raises(CommandError, match="several teams"):
        call_command("token", user="eve", scopes="read", stdout=out)
    call_command("token", user="eve", team="eves", scopes="deploy,read", stdout=out)
    actor = actor_of_token(out.getvalue().split()[-1])
    assert actor.user == User.objects.get(username="eve")
    assert actor.scopes == {"deploy", "read"}


def test_bootstrap_makes_everything_once(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    import json
    import stat

    from portal.config import config
    from portal.fleet.models import Host
    from portal.plans.models import Plan

    outs = []
    for _ in range(2):
        out = StringIO()
        call_command("bootstrap", stdout=out)
        outs.append(json.loads(out.getvalue()))
    assert outs[0]["made"] is True
    assert outs[1] == {"user": "admin", "password": None, "made": False}
    admin = User.objects.get(username="admin")
    assert admin.is_operator
    assert admin.check_password(outs[0]["password"])
    assert set(Plan.objects.values_list("slug", flat=True)) == {"nano", "small", "medium", "large"}
    assert Host.objects.count() == 1
    assert stat.filemode(config().run.stat().st_mode) == "drwx------"
