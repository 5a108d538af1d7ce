"""Apps and their environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from cryptography.fernet import InvalidToken
from django.core.management import call_command

from portal import secrets
from portal.accounts.actor import Actor
from portal.audit.models import Entry
from portal.config import config
from portal.errors import Conflict, Forbidden, Invalid, OverQuota
from portal.hosting.actions import create_app, set_env, update_app
from portal.hosting.environment import MASK, masked_environment, read_environment, unseal
from portal.hosting.models import App, EnvVar
from portal.hosting.usage import reserved_by
from portal.images.models import Image
from portal.plans.actions import retire_plan, set_quota
from portal.plans.models import Plan
from portal.releases import actions
from portal.releases.models import Release
from tests.conftest import People
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a.b", "1a", "x" * 41, "www", "api", "admin", "ä"])
def test_names_that_are_no_labels_or_reserved_are_refused(
    people: People, plans: object, acting: Actor, slug: str
) -> None:
    with pytest.raises(Invalid) as refused:
        create_app(acting, people.team, slug=slug)
    assert refused.value.hint
    assert not App.objects.exists()


def test_a_name_is_unique_on_the_whole_platform(people: People, app: App) -> None:
    theirs = Actor(user=people.stranger, door="api")
    team = people.stranger.teams.get()
    with pytest.raises(Conflict, match="exists already"):
        create_app(theirs, team, slug="hello")


def test_a_token_for_one_app_makes_no_other(people: People, plans: object) -> None:
    actor = Actor(user=people.owner, door="api", team_id=people.team.pk, app_slug="only")
    with pytest.raises(Forbidden):
        create_app(actor, people.team, slug="other")
    assert create_app(actor, people.team, slug="only").slug == "only"


def test_a_retired_plan_takes_no_new_apps(people: People, plans: dict[str, Plan], acting: Actor) -> None:
    retire_plan(Actor(user=people.operator, door="page"), plans["large"])
    with pytest.raises(Invalid, match="takes no new apps"):
        create_app(acting, people.team, slug="big", plan=Plan.objects.get(slug="large"))


def test_reservations_are_plans_times_instances(people: People, plans: dict[str, Plan], acting: Actor) -> None:
    create_app(acting, people.team, slug="one", plan=plans["nano"])
    create_app(acting, people.team, slug="two", plan=plans["large"])
    used = reserved_by(people.team)
    assert (used.apps, used.instances, used.memory_bytes) == (2, 2, (128 << 20) + (2 << 30))


def test_a_quota_refusal_names_every_figure(people: People, plans: dict[str, Plan], acting: Actor) -> None:
    set_quota(Actor(user=people.operator, door="page"), people.team, memory_bytes=1 << 30, cpu_millicores=1000)
    with pytest.raises(OverQuota) as refused:
        create_app(acting, people.team, slug="big", plan=plans["large"])
    assert "cpu: 0 cores of 1 cores used, 2 cores more wanted" in refused.value.message
    assert "memory: 0 B of 1 GB used, 2 GB more wanted" in refused.value.message


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 0},
        {"port": 70_000},
        {"port": "80"},
        {"health_path": "no-slash"},
        {"health_path": "/a\nb"},
        {"slug": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(app: App, acting: Actor, settings: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        update_app(acting, app, **settings)


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=B", "PORT", "MOORAGE_APP", "K" * 129])
def test_variables_no_container_could_have_are_refused(app: App, acting: Actor, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        set_env(acting, app, {key: "hunter2"})
    assert "hunter2" not in refused.value.message


def test_values_too_large_for_an_environment_are_refused(app: App, acting: Actor) -> None:
    with pytest.raises(Invalid):
        set_env(acting, app, {"BIG": "x" * 40_000})
    with pytest.raises(Invalid, match="128 kB"):
        set_env(acting, app, {f"K{n}": "x" * 30_000 for n in range(6)})
    assert not EnvVar.objects.exists()


def test_values_are_encrypted_masked_and_never_in_the_trail(app: App, acting: Actor) -> None:
    assert set_env(acting, app, {"A": "secret-value", "B": "2"}) == ["A", "B"]
    assert set_env(acting, app, {"A": "secret-value", "B": None}) == ["B"]
    assert read_environment(app) == {"A": "secret-value"}
    assert masked_environment(app) == {"A": MASK}
    assert b"secret-value" not in bytes(EnvVar.objects.get().value_encrypted)
    assert "secret-value" not in "".join(str(entry.details) for entry in Entry.objects.all())


@pytest.fixture
def keys() -> Iterator[None]:
    """The keys of before again afterwards."""
    path = config().secrets / "fernet_keys"
    before = path.read_text()
    yield
    path.write_text(before)
    secrets.forget_keys()


def test_keys_can_be_rotated_and_the_old_one_forgotten(
    keys: None, app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    set_env(acting, app, {"A": "1"})
    actions.deploy(acting, app, make_image(app))
    path = config().secrets / "fernet_keys"
    old_keys, old_value = path.read_text(), bytes(EnvVar.objects.get().value_encrypted)
    call_command("rotatekeys", stdout=StringIO())
    assert len(path.read_text().split()) == 2
    call_command("rotatekeys", "--drop", stdout=StringIO())
    assert len(path.read_text().split()) == 1
    assert path.read_text() != old_keys
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_environment(app) == {"A": "1"}
    assert unseal(Release.objects.get().environment_encrypted) == {"A": "1"}
    with pytest.raises(InvalidToken):
        secrets.decrypt(old_value)
