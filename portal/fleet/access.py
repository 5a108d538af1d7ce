"""Loading hosts: operators, and the host itself by its token."""

from __future__ import annotations

import hashlib
import hmac

from portal.accounts.access import require_operator
from portal.accounts.actor import Actor
from portal.errors import NotFound, Unauthenticated
from portal.fleet.models import Host


def get_host(actor: Actor, name: str) -> Host:
    """The host, for an operator."""
    require_operator(actor)
    host = Host.objects.filter(name=name).first()
    if host is None:
        raise NotFound(f"There is no host {name!r}.")
    return host


def token_digest(token: str) -> str:
    """What is kept of a host's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def host_of_token(name: str, token: str | None) -> Host:
    """The host `name` when `token` is its own; raises Unauthenticated, the same for an unknown host and a wrong token."""
    host = Host.objects.filter(name=name).first()
    kept = host.token_digest if host is not None else "0" * 64
    if not hmac.compare_digest(kept, token_digest(token or "")) or host is None:
        raise Unauthenticated(
            f"The token of host {name} is not right.", "Compare secrets/host_token with the portal's."
        )
    return host
