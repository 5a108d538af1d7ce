"""Loading volumes: the only way to get one in a view or a call."""

from __future__ import annotations

from django.db.models import QuerySet

from portal.accounts.access import Verb, get_team
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.errors import Forbidden, NotFound
from portal.volumes.models import Backup, Volume


def volumes_of(team: Team) -> QuerySet[Volume]:
    """A team's volumes, by name, those on their way out too."""
    return Volume.objects.filter(team=team).select_related("team", "host")


def team_of_volumes(actor: Actor, team: str, verb: Verb = "read") -> Team:
    """The team whose volumes are meant. A token of one app sees none: they are the whole team's."""
    found = get_team(actor, team, verb)
    if actor.app_slug:
        raise Forbidden("This token is for one app; volumes are the team's.", "Use a token without an app.")
    return found


def get_backup(actor: Actor, team: str, number: int, verb: Verb = "read") -> Backup:
    """The backup of that number in the team."""
    rows = Backup.objects.select_related("team", "volume__team", "volume__host")
    found = rows.filter(team=team_of_volumes(actor, team, verb), number=number).first()
    if found is None:
        raise NotFound(f"Team {team} has no backup {number}.")
    return found


def get_volume(actor: Actor, team: str, name: str, verb: Verb = "read") -> Volume:
    """The volume; NotFound for strangers, Forbidden for members without the right."""
    found = volumes_of(team_of_volumes(actor, team, verb)).filter(name=name).first()
    if found is None:
        raise NotFound(f"Team {team} has no volume {name[:80]!r}.", "Create it first.")
    return found
