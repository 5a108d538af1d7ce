"""A lost password: an operator's link, a mailed link, and what such a link may not do."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from email import message_from_string
from email.policy import default
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.accounts import passwords
from portal.accounts.actor import SYSTEM, Actor
from portal.accounts.models import User
from portal.accounts.tasks import mail_password_link, password_asked
from portal.audit.models import Entry
from portal.config import ConfigError, config
from portal.errors import Forbidden
from portal.hints import TASK_MAIL_LINK, TASK_PASSWORD_ASKED
from portal.mail import mail_from_url
from tests.conftest import People
from tests.portal.accounts.smtp import mail_server
from worker.protocol import CONTROL_QUEUE

pytestmark = pytest.mark.django_db(transaction=True)
NEW = "harbour-lamp-9"


def path_in(text: str) -> str:
    """The path of the link in a page, a mail or a command's output."""
    found = re.search(rf"{re.escape(config().public_url)}(/accounts/password/reset/[\w/-]+/)", text)
    assert found is not None, text
    return found[1]


def sign_in(password: str, name: str = "dan") -> bool:
    client = Client()
    client.post("/accounts/login/", {"login": name, "password": password})
    return "_auth_user_id" in client.session


def set_by(path: str, password: str = NEW, again: str | None = None) -> tuple[int, str]:
    answer = Client().post(path, {"password": password, "again": password if again is None else again})
    return answer.status_code, answer.content.decode()


def test_an_operators_link_sets_a_password_once_and_signs_other_browsers_out(people: People, operator: Client) -> None:
    before = people.client(people.developer)
    page = operator.post(f"/operator/users/{people.developer.pk}/password")
    assert page.status_code == 200 and page.headers["Cache-Control"] == "no-store"
    link = path_in(page.content.decode())
    assert link not in operator.get("/operator/users").content.decode()
    assert "for dan" in Client().get(link).content.decode()
    assert set_by(link)[0] == 200
    assert sign_in(NEW) and not sign_in("dan-pass-word-1")
    assert before.get("/account/").status_code == 302
    again = set_by(link, "another-lamp-10")
    assert again[0] == 410 and "was used" in again[1]
    assert sign_in(NEW)
    made, spent = Entry.objects.get(verb="password_link"), Entry.objects.get(verb="set_password")
    assert (made.user, spent.user) == (people.operator, people.developer)
    assert link.split("/")[-2] not in json.dumps([made.details, spent.details])


def test_a_link_is_refused_after_a_day_and_when_it_is_not_whole(people: People) -> None:
    link = path_in(passwords.make_link(SYSTEM, people.developer))
    key, token = link.split("/")[-3:-1]
    for dead in (link.replace(token, token[:-1]), link.replace(key, "AAAA"), link.replace(key, "9999")):
        answer = Client().get(dead)
        assert answer.status_code == 410 and "Ask for another one" in answer.content.decode()
    late = timezone.now() + timezone.timedelta(hours=passwords.VALID_HOURS, seconds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords.default_token_generator, "_now", lambda: late.replace(tzinfo=None))
        assert set_by(link)[0] == 410
    assert set_by(link)[0] == 200


def test_a_weak_password_and_one_typed_differently_are_refused_and_the_link_lives_on(people: People) -> None:
    link = path_in(passwords.make_link(SYSTEM, people.developer))
    assert "too short" in set_by(link, "short")[1]
    assert "not the same" in set_by(link, NEW, "harbour-lamp-8")[1]
    assert set_by(link, "dan@example.org")[0] == 422
    assert set_by(link)[0] == 200


def test_only_operators_make_links_and_none_for_whoever_is_switched_off(people: People, owner: Client) -> None:
    with pytest.raises(Forbidden):
        passwords.make_link(Actor(user=people.owner, door="page"), people.developer)
    assert owner.post(f"/operator/users/{people.developer.pk}/password").status_code == 403
    link = path_in(passwords.make_link(SYSTEM, people.developer))
    User.objects.filter(username="dan").update(is_active=False)
    assert set_by(link)[0] == 410
    with pytest.raises(CommandError, match="may not sign in"):
        call_command("passwordlink", "dan", stdout=StringIO())


def test_whoever_locked_himself_out_is_let_in_after_a_new_password(people: People) -> None:
    for _ in range(10):
        assert not sign_in("wrong")
    assert not sign_in("dan-pass-word-1")
    out = StringIO()
    call_command("passwordlink", "dan", stdout=out)
    assert set_by(path_in(out.getvalue()))[0] == 200
    assert sign_in(NEW)
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("passwordlink", "nobody", stdout=StringIO())


def test_without_a_mail_server_the_page_names_the_operator(people: People) -> None:
    assert "Password lost?" in Client().get("/accounts/login/").content.decode()
    answer = Client().get("/accounts/password/reset/")
    assert "sends no mail" in answer.content.decode()
    Client().post("/accounts/password/reset/", {"who": "dan"})
    assert not Entry.objects.filter(verb="ask_password").exists()


@pytest.fixture
def mails(settings: Any) -> Iterator[list[str]]:
    """What the platform's mail server got."""
    with mail_server() as (port, found):
        for name, value in mail_from_url(f"smtp://127.0.0.1:{port}").items():
            setattr(settings, name, value)
        yield found


def queued(task: str) -> tuple[str, dict[str, Any]]:
    """The next such message to the control worker: its argument, and the rest of it that is not of one message alone."""
    queue = redis.Redis.from_url(config().redis_url)
    message: dict[str, Any] = {"headers": {}}
    while message["headers"].get("task") != task:  # other tests' hints may still be on their way
        message = json.loads(queue.blpop([CONTROL_QUEUE], timeout=20)[1])  # type: ignore[index]
    [argument] = json.loads(base64.b64decode(message["body"]))[0]
    own = {"id", "root_id", "argsrepr", "expires", "origin"}
    return argument, {name: value for name, value in message["headers"].items() if name not in own}


def test_a_link_comes_by_mail_and_nobody_learns_who_has_an_account(people: People, mails: list[str]) -> None:
    redis.Redis.from_url(config().redis_url).delete(CONTROL_QUEUE)
    assert 'name="who"' in Client().get("/accounts/password/reset/").content.decode()
    known, unknown = (
        re.sub(r'"(csrfmiddlewaretoken|X-CSRFToken)"[^>]*', "", answer.content.decode())
        for answer in (Client().post("/accounts/password/reset/", {"who": who}) for who in ("dan@example.org", "eve"))
    )
    assert known == unknown and "Look into your mail" in known
    asked = {queued(TASK_PASSWORD_ASKED)[0] for _ in range(2)}
    assert asked == {"dan@example.org", "eve"}
    for who in asked:
        password_asked(who)
    assert queued(TASK_MAIL_LINK)[0] == people.developer.pk
    mail_password_link(people.developer.pk)
    assert len(mails) == 1
    mail = message_from_string(mails[0], policy=default)
    assert mail["To"] == "dan@example.org"
    assert set_by(path_in(mail.get_body().get_content()))[0] == 200  # type: ignore[union-attr]
    assert sign_in(NEW)
    assert Entry.objects.get(verb="ask_password").user == people.developer


def test_a_mailbox_is_not_filled_by_asking(people: People, mails: list[str]) -> None:
    for _ in range(passwords.MAILS_PER_HOUR + 2):
        password_asked("dan")
    assert Entry.objects.filter(verb="ask_password").count() == passwords.MAILS_PER_HOUR


def test_what_is_done_before_the_answer_is_the_same_whether_there_is_an_account_or_not(
    people: People, mails: list[str]
) -> None:
    User.objects.filter(username="vera").update(is_active=False)
    redis.Redis.from_url(config().redis_url).delete(CONTROL_QUEUE)
    done: list[tuple[list[str], dict[str, Any]]] = []
    for who in ("dan", "dan@example.org", "vera", "eve", "eve@example.org"):
        with CaptureQueriesContext(connection) as queries:
            answer = Client().post("/accounts/password/reset/", {"who": who})
        assert "Look into your mail" in answer.content.decode()
        argument, rest = queued(TASK_PASSWORD_ASKED)
        assert argument == who
        done.append(([query["sql"] for query in queries], rest))
    assert done == [done[0]] * len(done)
    assert mails == [] and not Entry.objects.filter(verb="ask_password").exists()


def test_asking_again_and_again_is_refused_for_a_while_with_or_without_an_account(
    people: People, mails: list[str]
) -> None:
    for who in ("dan", "eve"):
        answers = [Client().post("/accounts/password/reset/", {"who": who}) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert "Ask again in a minute" in answers[-1].content.decode()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("imap://mail.example.org", "give smtp, smtp\\+starttls, smtps"),
        ("smtps://", "names no host"),
        ("smtp://mail.example.org:many", "port that is none"),
    ],
)
def test_an_address_of_a_mail_server_that_cannot_be_used_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mail_from_url(url)


def test_the_usual_ports_and_a_password_with_a_colon() -> None:
    found = mail_from_url("smtp+starttls://ann%40x:pass%3Aword@mail.example.org")
    assert (found["EMAIL_PORT"], found["EMAIL_USE_TLS"], found["EMAIL_USE_SSL"]) == (587, True, False)
    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("ann@x", "pass:word")
    assert mail_from_url("smtps://mail.example.org")["EMAIL_PORT"] == 465


@pytest.mark.parametrize("path", ["2fa/", "email/", "password/set/", "reauthenticate/"])
def test_pages_that_nobody_made_ours_are_not_there(owner: Client, path: str) -> None:
    assert owner.get(f"/accounts/{path}").status_code == 404
