"""`manage.py addteam SLUG --owner NAME`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.accounts.actions import create_team
from portal.accounts.actor import SYSTEM
from portal.accounts.models import User
from portal.errors import PortalError


class Command(BaseCommand):
    """Adds a team."""

    help = "Add a team with its first owner."

    def add_arguments(self, parser: CommandParser) -> None:
        """Slug, name, owner."""
        parser.add_argument("slug")
        parser.add_argument("--name", default="")
        parser.add_argument("--owner", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the team through the action the pages use."""
        owner = User.objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"There is no user {options['owner']!r}. Add him with `manage.py adduser`.")
        try:
            create_team(SYSTEM, slug=options["slug"], name=options["name"], owner=owner)
        except PortalError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from None
        self.stdout.write(f"Added team {options['slug']}.")
