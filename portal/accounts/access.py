"""Who may do what: roles, token scopes, and turning a request into an Actor. Loading is authorising.

| verb | viewer | developer | maintainer | owner | token scope |
|---|---|---|---|---|---|
| `read`: look | yes | yes | yes | yes | read |
| `deploy`: deploy, roll back, start, stop, restart, cancel | | yes | yes | yes | deploy |
| `write`: create, configure, scale, delete apps; environment | | | yes | yes | write |
| `admin`: members, other people's tokens | | | | yes | write |
| `operate`: plans, quotas, hosts, everything of every team | operators | | | | operator |

A larger scope includes the smaller ones. A token is further held to its team, and to its app when it names one;
only the scope `operator` of an operator's token reaches beyond.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from http.cookies import SimpleCookie
from importlib import import_module
from typing import Any, Literal

from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import timezone

from portal.accounts.actor import Actor, Door
from portal.accounts.models import ApiToken, Membership, Role, Team, User
from portal.errors import Forbidden, NotFound, Unauthenticated

type Verb = Literal["read", "deploy", "write", "admin", "operate"]

VERBS_OF_ROLE: dict[str, frozenset[str]] = {
    Role.VIEWER: frozenset({"read"}),
    Role.DEVELOPER: frozenset({"read", "deploy"}),
    Role.MAINTAINER: frozenset({"read", "deploy", "write"}),
    Role.OWNER: frozenset({"read", "deploy", "write", "admin"}),
}
VERBS_OF_SCOPE: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "deploy": frozenset({"read", "deploy"}),
    "write": frozenset({"read", "deploy", "write", "admin"}),
    "operator": frozenset({"read", "deploy", "write", "admin", "operate"}),
}
_LEAST_ROLE = {"read": "a viewer", "deploy": "a developer", "write": "a maintainer", "admin": "an owner"}
TOKEN_PREFIX = "moor_"


def role_in(user: User, team: Team) -> str | None:
    """The user's role in the team, or None."""
    return Membership.objects.filter(user=user, team=team).values_list("role", flat=True).first()


def _scope_allows(actor: Actor, verb: str) -> bool:
    return any(verb in VERBS_OF_SCOPE[scope] for scope in actor.scopes if scope in VERBS_OF_SCOPE)


def is_operator(actor: Actor) -> bool:
    """Whether the actor runs the platform, through a door that lets him."""
    if actor.user is None:
        return True
    return actor.user.is_active and actor.user.is_operator and "operator" in actor.scopes


def can(actor: Actor, verb: Verb, team: Team | None = None) -> bool:
    """Whether the actor may do `verb` in `team` (None: on the platform). One query at most."""
    if is_operator(actor):
        return True
    user = actor.user
    if user is None or team is None or not user.is_active or not _scope_allows(actor, verb):
        return False
    if actor.team_id is not None and actor.team_id != team.pk:
        return False
    role = role_in(user, team)
    return role is not None and verb in VERBS_OF_ROLE[role]


def require(actor: Actor, verb: Verb, team: Team, *, missing: str) -> None:
    """Raise NotFound(`missing`) when the actor may not even read, Forbidden with a sentence when only `verb` is lacking."""
    if can(actor, verb, team):
        return
    if verb == "read" or not can(actor, "read", team):
        raise NotFound(missing)
    if not _scope_allows(actor, verb):
        raise Forbidden(
            f"This token's scopes ({', '.join(sorted(actor.scopes)) or 'none'}) do not include {verb}.",
            f"Make a token with the scope {'write' if verb == 'admin' else verb}.",
        )
    role = role_in(actor.user, team) if actor.user else None
    raise Forbidden(
        f"You are {'an' if role == 'owner' else 'a'} {role} in team {team.slug}; this needs at least {_LEAST_ROLE.get(verb, 'an operator')}.",
        "Ask an owner of the team to change your role.",
    )


def require_operator(actor: Actor) -> None:
    """Raise Forbidden unless the actor runs the platform."""
    if not is_operator(actor):
        raise Forbidden("Only an operator of the platform may do this.", "Ask the person who runs it.")


def get_team(actor: Actor, slug: str, verb: Verb = "read") -> Team:
    """The team, when the actor may do `verb` in it; NotFound for strangers, Forbidden for members without the right."""
    missing = f"There is no team {slug!r}."
    team = Team.objects.filter(slug=slug).first()
    if team is None:
        raise NotFound(missing)
    require(actor, verb, team, missing=missing)
    return team


def only_team(actor: Actor, verb: Verb = "write") -> Team:
    """The team meant when none is named: a token's, or the user's only one. Raises NotFound with a way out."""
    if actor.team_id is not None:
        team = Team.objects.get(pk=actor.team_id)
        require(actor, verb, team, missing="This token's team is gone.")
        return team
    teams = list(Team.objects.filter(members=actor.user).order_by("slug")[:2]) if actor.user else []
    if len(teams) != 1:
        raise NotFound("You are in several teams or in none.", 'Name one: "team": "<slug>".', code="team_needed")
    require(actor, verb, teams[0], missing="You are in no team.")
    return teams[0]


def digest_of(secret: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def actor_of_token(secret: str, door: Door = "api") -> Actor:
    """The actor behind a Bearer token; raises Unauthenticated when it is unknown, expired or its user inactive."""
    return _actor_of_row(door, digest=digest_of(secret))


def actor_of_token_key(key: int, door: Door) -> Actor:
    """The same by the token's row: what a short token that was given for it stands for, while it is there."""
    return _actor_of_row(door, pk=key)


def token_key(secret: str) -> int | None:
    """The row of a token."""
    return ApiToken.objects.filter(digest=digest_of(secret)).values_list("pk", flat=True).first()


def _actor_of_row(door: Door, **which: Any) -> Actor:
    token = ApiToken.objects.select_related("membership__user").filter(**which).first()
    now = timezone.now()
    if token is None or not token.membership.user.is_active:
        raise Unauthenticated("This token is not known.", "Make one on your profile page or with `manage.py token`.")
    if token.expires_at is not None and token.expires_at <= now:
        raise Unauthenticated(f"This token expired on {token.expires_at:%Y-%m-%d %H:%M} UTC.", "Make a new one.")
    if token.last_used_at is None or (now - token.last_used_at).total_seconds() > 60:
        with contextlib.suppress(DatabaseError):  # a full disk keeps nobody from looking
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return Actor(
        user=token.membership.user,
        door=door,
        scopes=frozenset(token.scopes),
        team_id=token.membership.team_id,
        app_slug=token.app_slug,
    )


def actor_of(request: HttpRequest, door: Door = "page") -> Actor:
    """The actor of a signed-in session; raises Unauthenticated."""
    if not isinstance(request.user, User):
        raise Unauthenticated("You are not signed in.", "Sign in, or send `Authorization: Bearer <token>`.")
    return Actor(user=request.user, door=door)


def bearer_of(header: str) -> str | None:
    """The token in an Authorization header, or None when the header is another kind or empty."""
    kind, _, secret = header.strip().partition(" ")
    return secret.strip() if kind.lower() == "bearer" and secret.strip() else None


def actor_of_headers(headers: Mapping[str, str], *, method: str, door: Door = "api") -> Actor:
    """For raw ASGI: the actor of a Bearer token, else of the session cookie with its CSRF header. Lower-case names.

    Raises Unauthenticated, or Forbidden when a session's CSRF check fails on an unsafe method.
    """
    secret = bearer_of(headers.get("authorization", ""))
    if secret is not None:
        return actor_of_token(secret, door)
    request = HttpRequest()
    request.method = method
    cookies = SimpleCookie(headers.get("cookie", ""))
    request.COOKIES = {name: morsel.value for name, morsel in cookies.items()}
    request.META = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    request.META["SERVER_NAME"], request.META["SERVER_PORT"] = "portal", "80"
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    request.user = get_user(request)
    actor = actor_of(request, door)
    check = CsrfViewMiddleware(lambda request: HttpResponse())
    check.process_request(request)
    if check.process_view(request, lambda: HttpResponse(), (), {}) is not None:
        raise Forbidden(
            "The CSRF token is missing or stale.", "Reload the page; scripts use a Bearer token.", code="csrf"
        )
    return actor
