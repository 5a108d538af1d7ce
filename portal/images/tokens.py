"""Short tokens of the registry: signed, not stored; they end by themselves. A host's names the one repository it pulls from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from django.core import signing

PULL_TOKEN_S = 15 * 60
_SALT = "moorage.registry.pull"
_USER_SALT = "moorage.registry.user"


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


def _user_signer() -> signing.Signer:
    return signing.Signer(salt=_USER_SALT, sep=".")


def make_user_token(key: int, grants: Mapping[str, Sequence[str]], *, lifetime_s: int = PULL_TOKEN_S) -> str:
    """A Bearer token that stands for an API token's row, for these actions by repository. It ends when the API token does."""
    return _user_signer().sign_object({"k": key, "g": grants, "e": int(time.time()) + lifetime_s})


def user_claims(token: str) -> tuple[int, dict[str, list[str]]] | None:
    """Row and grants of a token of `make_user_token`; None when it is forged or has expired."""
    try:
        claims = _user_signer().unsign_object(token)
    except signing.BadSignature:
        return None
    if not isinstance(claims, dict) or claims.get("e", 0) < time.time():
        return None
    return int(claims["k"]), dict(claims["g"])
