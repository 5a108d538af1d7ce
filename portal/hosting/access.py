"""Loading apps: the only way to get one in a view, a call, a websocket or a task started by a person."""

from __future__ import annotations

from django.db.models import QuerySet

from portal.accounts.access import Verb, can, is_operator, require
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.errors import NotFound
from portal.hosting.models import App


def _missing(slug: str) -> NotFound:
    return NotFound(f"There is no app {slug!r}.", "Create it first: the button New app, or POST /api/v1/apps.")


def get_app(actor: Actor, slug: str, verb: Verb = "read") -> App:
    """The app with its team and plan. NotFound for strangers, Forbidden with a sentence for members without the right."""
    app = App.objects.select_related("team", "plan").filter(slug=slug).first()
    if app is None or (actor.app_slug and actor.app_slug != slug):
        raise _missing(slug)
    if not can(actor, "read", app.team):
        raise _missing(slug)
    require(actor, verb, app.team, missing=f"There is no app {slug!r}.")
    return app


def visible_apps(actor: Actor, *, team: Team | None = None) -> QuerySet[App]:
    """The apps an actor may read, in order of name, with team and plan loaded; an operator sees all."""
    rows = App.objects.select_related("team", "plan").order_by("slug")
    if team is not None:
        rows = rows.filter(team=team)
    if actor.app_slug:
        rows = rows.filter(slug=actor.app_slug)
    if is_operator(actor):
        return rows
    rows = rows.filter(team__members=actor.user)
    return rows.filter(team=actor.team_id) if actor.team_id is not None else rows
