"""`manage.py bootstrap`: everything a platform needs before its first request. Running it again changes nothing."""

from __future__ import annotations

import json
import os
import secrets as stdlib_secrets
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from portal import secrets
from portal.accounts.actions import create_team, create_user
from portal.accounts.actor import SYSTEM
from portal.accounts.models import Team, User
from portal.config import config
from portal.fleet.access import token_digest
from portal.fleet.models import Host
from portal.plans.actions import quota_of, seed_plans

ADMIN = "admin"


class Command(BaseCommand):
    """Secrets, the folder of sockets, the operator `admin` with team `admin`, the plans, this host's row. Prints JSON once."""

    help = "Make secrets, the operator admin, plans and this host's row; safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """`--migrate` brings the database up to date first, so that Django is booted once."""
        parser.add_argument("--migrate", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print `{"user", "password", "made"}`; the password only when it was made here."""
        secrets.ensure(config().secrets)
        if "MOORAGE_RUN" in os.environ:
            config().run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if options["migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        self._fill()

    @transaction.atomic
    def _fill(self) -> None:
        made, password = self._operator()
        seed_plans()
        Host.objects.update_or_create(
            name=config().host_name, defaults={"token_digest": token_digest(secrets.read("host_token"))}
        )
        self.stdout.write(json.dumps({"user": ADMIN, "password": password, "made": made}))

    def _operator(self) -> tuple[bool, str | None]:
        user = User.objects.filter(username=ADMIN).first()
        given = os.environ.get("MOORAGE_ADMIN_PASSWORD", "")
        password = given or stdlib_secrets.token_urlsafe(12)
        made = user is None
        if user is None:
            user = create_user(
                SYSTEM,
                username=ADMIN,
                email=f"{ADMIN}@{config().domain if '.' in config().domain else 'moorage.invalid'}",
                password=password,
                is_operator=True,
                check_password=False,
            )
        team = Team.objects.filter(slug=ADMIN).first() or create_team(SYSTEM, slug=ADMIN, name="Admin", owner=user)
        quota_of(team)
        return made, password if made and not given else None
