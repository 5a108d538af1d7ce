"""The trail: every action leaves one row, and who may read it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from portal.accounts.actor import Actor
from portal.audit.access import visible_entries
from portal.audit.models import Entry
from portal.errors import Forbidden, NotFound
from portal.hosting.actions import set_env
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import Plan
from portal.releases import actions
from tests.conftest import People
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


def test_each_action_leaves_a_row_with_person_door_and_team(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    set_env(acting, app, {"A": "1"})
    deployment = actions.deploy(acting, app, make_image(app))
    actions.cancel(acting, deployment)
    actions.deploy(acting, app, make_image(app, "two"))
    host.carry_out()
    actions.scale(acting, app, {"web": 2})
    actions.move_to_plan(acting, app, Plan.objects.get(slug="medium"))
    actions.restart(acting, app)
    host.carry_out()
    actions.stop(acting, app)
    actions.start(acting, app)
    actions.delete_app(acting, app)
    rows = Entry.objects.filter(object_kind="app", object_name="hello").order_by("pk")
    verbs = list(rows.values_list("verb", flat=True))
    assert verbs == [
        "create", "set_env", "deploy", "cancel", "deploy", "scale", "move_to_plan", "restart", "stop", "start", "delete",
    ]  # fmt: skip
    assert set(rows.values_list("user__username", "door", "team_slug")) == {("olga", "api", "acme")}


def test_a_refused_action_leaves_none(people: People, app: App) -> None:
    before = Entry.objects.count()
    with pytest.raises(Forbidden):
        actions.stop(Actor(user=people.viewer, door="page"), app)
    assert Entry.objects.count() == before


def test_owners_read_their_teams_trail_operators_all_others_nothing(people: People, app: App) -> None:
    def teams(user: object) -> set[str]:
        return set(visible_entries(Actor(user=user, door="page")).values_list("team_slug", flat=True))  # type: ignore[arg-type]

    assert teams(people.owner) == {"acme"}
    assert teams(people.operator) >= {"acme", "strangers", "operators"}
    assert teams(people.developer) == set()
    with pytest.raises(Forbidden):
        visible_entries(Actor(user=people.developer, door="page"), "acme")
    with pytest.raises(NotFound):
        visible_entries(Actor(user=people.stranger, door="page"), "acme")
