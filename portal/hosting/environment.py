"""An app's variables: encrypted at rest, masked whenever they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from portal import secrets
from portal.errors import Invalid
from portal.hosting.models import App, EnvVar

MASK = "••••••••"
VALUE_MAX_BYTES = 32 * 1024
TOTAL_MAX_BYTES = (
    128 * 1024
)  # execve holds arguments and environment; one string may have 128 KiB (execve(2), MAX_ARG_STRLEN)
KEYS_MAX = 200
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED = re.compile(r"PORT|MOORAGE_.*")


def read_environment(app: App) -> dict[str, str]:
    """The variables in clear, for making a release."""
    rows = EnvVar.objects.filter(app=app)
    return {row.key: secrets.decrypt(row.value_encrypted).decode() for row in rows}


def masked_environment(app: App) -> dict[str, str]:
    """The variables as anyone may see them: names, and a mask of one length."""
    return dict.fromkeys(EnvVar.objects.filter(app=app).values_list("key", flat=True), MASK)


def seal(environment: Mapping[str, str]) -> bytes:
    """An environment as one encrypted value, for a release."""
    return secrets.encrypt(json.dumps(dict(environment), sort_keys=True).encode())


def unseal(sealed: bytes | memoryview) -> dict[str, str]:
    """The inverse of `seal`."""
    plain: dict[str, str] = json.loads(secrets.decrypt(sealed))
    return plain


def check_changes(changes: Mapping[str, str | None]) -> None:
    """Raise Invalid for a name or value that no container could be given; values never stand in the message."""
    for key, value in changes.items():
        if not _KEY.fullmatch(key):
            raise Invalid(
                f"{key[:40]!r} cannot be a variable's name.", "Use letters, digits and underscores, at most 128."
            )
        if value is None:
            continue
        if _RESERVED.fullmatch(key):
            raise Invalid(f"{key} is set by the platform.", "Choose another name; the port is a setting of the app.")
        if "\0" in value or len(value.encode()) > VALUE_MAX_BYTES:
            raise Invalid(f"The value of {key} has a NUL byte or more than {VALUE_MAX_BYTES // 1024} kB.")


def check_whole(environment: Mapping[str, str]) -> None:
    """Raise Invalid when the environment as a whole is too large to start a process with."""
    total = sum(len(key) + len(value.encode()) + 2 for key, value in environment.items())
    if total > TOTAL_MAX_BYTES or len(environment) > KEYS_MAX:
        raise Invalid(
            f"The environment would have {len(environment)} variables and {total // 1024} kB; "
            f"the most is {KEYS_MAX} and {TOTAL_MAX_BYTES // 1024} kB."
        )
