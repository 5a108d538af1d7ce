"""Who may read the trail."""

from __future__ import annotations

from django.db.models import QuerySet

from portal.accounts.access import get_team, is_operator
from portal.accounts.actor import Actor
from portal.accounts.models import Membership, Role
from portal.audit.models import Entry


def visible_entries(actor: Actor, team: str = "") -> QuerySet[Entry]:
    """Entries of one team for its owners; without one all for an operator, and those of the teams one owns otherwise."""
    rows = Entry.objects.select_related("user")
    if team:
        return rows.filter(team_slug=get_team(actor, team, "admin").slug)
    if is_operator(actor):
        return rows
    owned = Membership.objects.filter(user=actor.user, role=Role.OWNER)
    if actor.team_id is not None:
        owned = owned.filter(team=actor.team_id) if "write" in actor.scopes else owned.none()
    return rows.filter(team_slug__in=owned.values("team__slug"))
