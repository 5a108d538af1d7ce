"""Who speaks to the registry, and what he may do in a repository: always `accounts.access.can`, narrowed by the token.

| action | verb of `can` |
|---|---|
| pull | read |
| push | deploy |
| delete | write |
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from portal.accounts.access import (
    TOKEN_PREFIX,
    Verb,
    actor_of_token,
    actor_of_token_key,
    can,
    is_operator,
    require,
    token_key,
)
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.errors import PortalError, Unauthenticated
from portal.images.registry import NAME, RegistryError
from portal.images.tokens import make_user_token, pull_repository, user_claims

VERBS: Mapping[str, Verb] = {"pull": "read", "push": "deploy", "delete": "write"}
CATALOG = "catalog"
_SCOPE = re.compile(rf"repository(?:\([a-z]+\))?:(?P<name>{NAME}):(?P<actions>[a-z,*]+)")
_MAX_SCOPES = 50


@dataclass(frozen=True, slots=True)
class Caller:
    """A person's token, or (without an actor) a host that pulls from one repository.

    `grants`: actions by repository that a token of the token endpoint was given for; None: all the actor may do.
    """

    actor: Actor | None
    grants: Mapping[str, frozenset[str]] | None = None

    def granted(self, repository: str, action: str) -> bool:
        """Whether the token, apart from its owner, reaches so far."""
        return self.grants is None or action in self.grants.get(repository, frozenset())


def caller_of(authorization: str) -> Caller:
    """Basic with an API token as the password, an API token as Bearer, or a token of ours; RegistryError 401."""
    kind, _, secret = authorization.strip().partition(" ")
    secret = secret.strip()
    if kind.lower() == "basic":
        return Caller(actor_of_basic(authorization))
    if kind.lower() != "bearer" or not secret:
        raise RegistryError(401, "UNAUTHORIZED", "Ask the token endpoint for a token first.")
    if secret.startswith(TOKEN_PREFIX):
        return Caller(known(secret))
    repository = pull_repository(secret)
    if repository is not None:
        return Caller(None, {repository: frozenset({"pull"})})
    claims = user_claims(secret)
    if claims is None:
        raise RegistryError(401, "UNAUTHORIZED", "This token is not known here or has ended.")
    key, grants = claims
    try:
        return Caller(actor_of_token_key(key, "push"), {name: frozenset(actions) for name, actions in grants.items()})
    except Unauthenticated as error:
        raise RegistryError(401, "UNAUTHORIZED", f"{error.message} {error.hint}") from None


def known(secret: str) -> Actor:
    """The actor of an API token; RegistryError 401."""
    try:
        return actor_of_token(secret, "push")
    except Unauthenticated as error:
        raise RegistryError(401, "UNAUTHORIZED", f"{error.message} {error.hint}") from None


def secret_of_basic(header: str) -> str:
    """The password of an Authorization header; "" when there is none."""
    kind, _, encoded = header.strip().partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode() if kind.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return text.partition(":")[2]


def actor_of_basic(header: str) -> Actor:
    """The actor of Basic credentials: any user name, an API token as the password. RegistryError 401."""
    secret = secret_of_basic(header)
    if not secret:
        raise RegistryError(401, "UNAUTHORIZED", "Sign in with any user name and an API token as the password.")
    return known(secret)


def is_repository(name: str) -> bool:
    """Whether it is spelled as one."""
    return re.fullmatch(NAME, name) is not None


def team_of(repository: str) -> Team | None:
    """The team of `<team>/<app>`."""
    return Team.objects.filter(slug=repository.partition("/")[0]).first()


def may(actor: Actor, repository: str, action: str) -> bool:
    """Whether the actor may do this in the repository."""
    team = team_of(repository)
    if team is None or actor.app_slug not in ("", repository.partition("/")[2]):
        return False
    return can(actor, VERBS[action], team)


def authorise(caller: Caller, repository: str, action: str) -> Team:
    """The repository's team. RegistryError: 401 when a token with more scope would do, 403 when none would.

    A stranger is told the same of repositories that are there and of those that are not.
    """
    if caller.actor is None:
        if not caller.granted(repository, action):
            raise RegistryError(401, "UNAUTHORIZED", f"This token does not {action} {repository}.")
    elif not may(caller.actor, repository, action):
        raise _refused(caller.actor, repository, action)
    elif not caller.granted(repository, action):
        raise RegistryError(401, "UNAUTHORIZED", f"This token was not made for {action} in {repository}.")
    team = team_of(repository)
    if team is None:
        raise RegistryError(403, "DENIED", _nothing(repository, action))
    return team


def _refused(actor: Actor, repository: str, action: str) -> RegistryError:
    team = team_of(repository)
    if team is not None and may(actor, repository, "pull"):  # a member: which right is lacking
        try:
            require(actor, VERBS[action], team, missing="")
        except PortalError as error:
            return RegistryError(403, "DENIED", f"{error.message} {error.hint}".strip())
    return RegistryError(403, "DENIED", _nothing(repository, action))


def _nothing(repository: str, action: str) -> str:
    return f"There is no repository {repository} in which you may {action}."


def requested(scopes: Iterable[str]) -> dict[str, frozenset[str]]:
    """Actions by repository that scopes ask for (`repository:<team>/<app>:pull,push`); others are left out."""
    found: dict[str, frozenset[str]] = {}
    for text in [part for scope in scopes for part in scope.split(" ")][:_MAX_SCOPES]:
        if text == "registry:catalog:*":
            found[CATALOG] = frozenset({"*"})
        elif match := _SCOPE.fullmatch(text):
            asked = set(match["actions"].split(","))
            actions = set(VERBS) if "*" in asked else asked & set(VERBS)
            found[match["name"]] = found.get(match["name"], frozenset()) | actions
    return found


def token_for(actor: Actor, secret: str, wanted: Mapping[str, frozenset[str]]) -> str:
    """A token for as much of what was asked for as the actor may: what is missing is refused where it is used."""
    granted = {
        name: sorted(actions if name == CATALOG else (action for action in actions if may(actor, name, action)))
        for name, actions in wanted.items()
    }
    key = token_key(secret)
    if key is None:
        raise RegistryError(401, "UNAUTHORIZED", "This token is not known.")
    return make_user_token(key, granted)


def readable_teams(actor: Actor) -> list[int]:
    """Teams whose repositories the actor may list."""
    if is_operator(actor):
        return list(Team.objects.values_list("pk", flat=True))
    return [team.pk for team in Team.objects.filter(members=actor.user) if can(actor, "read", team)]
