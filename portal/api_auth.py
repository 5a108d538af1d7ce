"""Who calls the API: a Bearer token, or a page's own script with the session and its CSRF header."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security import HttpBearer
from ninja.utils import check_csrf

from portal.accounts.access import actor_of, actor_of_token, bearer_of
from portal.accounts.actor import Actor
from portal.errors import Forbidden


class ApiAuth(HttpBearer):
    """Sets `request.auth` to the Actor; raises Unauthenticated or Forbidden, which become problem+json."""

    def __call__(self, request: HttpRequest) -> Actor:
        """Called by ninja before each operation."""
        secret = bearer_of(request.headers.get("Authorization", ""))
        if secret is not None:
            return actor_of_token(secret)
        actor = actor_of(request, "page")
        if request.method not in {"GET", "HEAD", "OPTIONS"} and check_csrf(request) is not None:
            raise Forbidden("The CSRF token is missing or stale.", "Scripts use a Bearer token.", code="csrf")
        return actor

    def authenticate(self, request: HttpRequest, token: str) -> Actor:
        """Required by HttpBearer; not reached."""
        return actor_of_token(token)


def acting(request: HttpRequest) -> Actor:
    """The actor ninja put on the request."""
    actor = getattr(request, "auth", None)
    if not isinstance(actor, Actor):
        raise Forbidden("Nobody is acting.")
    return actor
