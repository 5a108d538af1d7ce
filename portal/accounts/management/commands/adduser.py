"""`manage.py adduser NAME --email E`: a person, with a password from MOORAGE_PASSWORD or one made here."""

from __future__ import annotations

import os
import secrets
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.accounts.actions import create_user
from portal.accounts.actor import SYSTEM
from portal.errors import PortalError


class Command(BaseCommand):
    """Adds a person."""

    help = "Add a person. The password comes from MOORAGE_PASSWORD, else one is made and printed as the last word."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name, address, and whether he runs the platform."""
        parser.add_argument("username")
        parser.add_argument("--email", required=True)
        parser.add_argument("--operator", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the user through the action the pages use."""
        given = os.environ.get("MOORAGE_PASSWORD", "")
        password = given or secrets.token_urlsafe(12)
        try:
            create_user(
                SYSTEM,
                username=options["username"],
                email=options["email"],
                password=password,
                is_operator=options["operator"],
            )
        except PortalError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from None
        end = "." if given else f"; the password is {password}"
        self.stdout.write(f"Added {options['username']}{end}")
