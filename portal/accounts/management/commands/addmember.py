"""`manage.py addmember TEAM USER --role developer`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.accounts.actions import add_member
from portal.accounts.actor import SYSTEM
from portal.accounts.models import Role, Team, User
from portal.errors import PortalError


class Command(BaseCommand):
    """Gives a person a role in a team."""

    help = "Add a person to a team."

    def add_arguments(self, parser: CommandParser) -> None:
        """Team, user, role."""
        parser.add_argument("team")
        parser.add_argument("username")
        parser.add_argument("--role", default=Role.DEVELOPER, choices=Role.values)

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the membership through the action the pages use."""
        team = Team.objects.filter(slug=options["team"]).first()
        user = User.objects.filter(username=options["username"]).first()
        if team is None or user is None:
            missing = f"team {options['team']!r}" if team is None else f"user {options['username']!r}"
            raise CommandError(f"There is no {missing}.")
        try:
            add_member(SYSTEM, team, user, options["role"])
        except PortalError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from None
        self.stdout.write(f"{user.username} is {options['role']} in {team.slug}.")
