"""`manage.py token --user U --scopes deploy`: prints a Bearer token as its last word."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from portal.accounts.actions import create_token
from portal.accounts.actor import SYSTEM
from portal.accounts.models import Membership
from portal.errors import PortalError


class Command(BaseCommand):
    """Makes a token for a person in a team."""

    help = "Print a new Bearer token as the last word."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whose, where, what it may do, how long."""
        parser.add_argument("--user", required=True)
        parser.add_argument("--team", default="", help="needed when the user is in several")
        parser.add_argument("--scopes", required=True, help="of read, deploy, write, operator; separated by commas")
        parser.add_argument("--app", default="", help="hold it to one app")
        parser.add_argument("--name", default="command line", help="what the list of tokens calls it")
        parser.add_argument("--days", type=int, default=0, help="0: until it is revoked")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the token through the action the pages use."""
        rows = Membership.objects.filter(user__username=options["user"]).order_by("team__slug")
        if options["team"]:
            rows = rows.filter(team__slug=options["team"])
        found = list(rows.select_related("team", "user")[:2])
        if len(found) != 1:
            what = "is in no such team" if not found else "is in several teams: give --team"
            raise CommandError(f"{options['user']} {what}.")
        expires = timezone.now() + dt.timedelta(days=options["days"]) if options["days"] else None
        scopes = options["scopes"].replace(",", " ").split()
        try:
            new = create_token(
                SYSTEM, found[0], name=options["name"], scopes=scopes, app_slug=options["app"], expires_at=expires
            )
        except PortalError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from None
        self.stdout.write(f"Token of {options['user']} in team {found[0].team.slug}: {new.secret}")
