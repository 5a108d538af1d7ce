"""`manage.py rotatekeys`: a new encryption key on top, every secret under it, the old keys dropped when asked."""

from __future__ import annotations

import os
from typing import Any

from cryptography.fernet import Fernet
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from portal import secrets
from portal.config import config
from portal.hosting.models import EnvVar
from portal.releases.models import Release


class Command(BaseCommand):
    """Two calls with a restart of the platform between them: the first adds, the second (`--drop`) forgets the old."""

    help = "Add an encryption key and re-encrypt every secret; --drop forgets all keys but the newest."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whether to add or to drop."""
        parser.add_argument("--drop", action="store_true", help="forget all keys but the first")

    def handle(self, *args: Any, **options: Any) -> None:
        """Every running process reads the keys at its start: restart between the two calls."""
        path = config().secrets / "fernet_keys"
        keys = path.read_text().split()
        if not options["drop"]:
            keys.insert(0, Fernet.generate_key().decode())
            self._write(keys)
        count = self._rotate()
        if options["drop"]:
            self._write(keys[:1])
        self.stdout.write(f"Re-encrypted {count} secrets under the newest of {len(keys)} keys.")

    def _write(self, keys: list[str]) -> None:
        path = config().secrets / "fernet_keys"
        fresh = path.with_name(f".fernet_keys.{os.getpid()}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write("\n".join(keys) + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        secrets.forget_keys()

    @transaction.atomic
    def _rotate(self) -> int:
        count = 0
        for variable in EnvVar.objects.select_for_update().iterator():
            rotated = secrets.rotate(variable.value_encrypted)
            EnvVar.objects.filter(pk=variable.pk).update(value_encrypted=rotated)
            count += 1
        for release in Release.objects.select_for_update().iterator():
            rotated = secrets.rotate(release.environment_encrypted)
            Release.objects.filter(pk=release.pk).update(environment_encrypted=rotated)
            count += 1
        return count
