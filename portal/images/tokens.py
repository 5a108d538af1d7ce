"""Short pull tokens: signed, not stored; they name one repository and end by themselves."""

from __future__ import annotations

import time

from django.core import signing

PULL_TOKEN_S = 15 * 60
_SALT = "moorage.registry.pull"


def _signer() -> signing.Signer:
    return signing.Signer(salt=_SALT, sep=".")  # ":" may not stand in a Bearer token (RFC 6750 section 2.1)


def make_pull_token(repository: str, *, lifetime_s: int = PULL_TOKEN_S) -> str:
    """A Bearer token that pulls from `<team>/<app>` for `lifetime_s` seconds."""
    return _signer().sign_object({"r": repository, "e": int(time.time()) + lifetime_s})


def pull_repository(token: str) -> str | None:
    """The repository a token pulls from; None when it is forged or has expired."""
    try:
        claims = _signer().unsign_object(token)
    except signing.BadSignature:
        return None
    if not isinstance(claims, dict) or claims.get("e", 0) < time.time():
        return None
    return str(claims.get("r", ""))
