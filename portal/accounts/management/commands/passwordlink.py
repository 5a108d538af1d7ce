"""`manage.py passwordlink NAME`: prints a link that sets a new password as its last word."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.accounts.actor import SYSTEM
from portal.accounts.models import User
from portal.accounts.passwords import VALID_HOURS, make_link
from portal.errors import PortalError


class Command(BaseCommand):
    """Makes a link for a person who lost the password."""

    help = f"Print a link that sets a new password once, within {VALID_HOURS} hours, as the last word."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whose."""
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the link through the action the pages use."""
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}. Add him with `manage.py adduser`.")
        try:
            link = make_link(SYSTEM, user)
        except PortalError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from None
        self.stdout.write(f"{user.username} sets a new password, once and within {VALID_HOURS} hours, at {link}")
