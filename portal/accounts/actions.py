"""People, teams and tokens: making and ending them."""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from portal import hints
from portal.accounts.access import TOKEN_PREFIX, VERBS_OF_SCOPE, can, digest_of, require, require_operator
from portal.accounts.actor import Actor
from portal.accounts.models import ApiToken, Membership, Role, Team, User
from portal.audit.actions import record
from portal.errors import Conflict, Forbidden, Invalid

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_USERNAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?")


def check_label(text: str, what: str) -> str:
    """A DNS label of at most 40 characters that begins with a letter; raises Invalid with the rule."""
    if not _LABEL.fullmatch(text):
        raise Invalid(
            f"{text!r} cannot be the name of {what}.",
            "Use 1 to 40 lower-case letters, digits and hyphens, beginning with a letter, not ending with a hyphen.",
            code="invalid_name",
        )
    return text


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made. `secret` is shown once and kept nowhere."""

    row: ApiToken
    secret: str


@transaction.atomic
def create_user(
    actor: Actor, *, username: str, email: str, password: str, is_operator: bool = False, check_password: bool = True
) -> User:
    """Add a person (operators only). Raises Invalid for a weak password or bad address, Conflict for a name in use."""
    require_operator(actor)
    if not _USERNAME.fullmatch(username):
        raise Invalid(
            f"{username!r} cannot be a user name.",
            "Use up to 40 lower-case letters, digits, dots, hyphens, underscores.",
        )
    if User.objects.filter(username=username).exists() or User.objects.filter(email__iexact=email).exists():
        raise Conflict(f"The name {username} or the address {email} is in use.", "Choose another.")
    user = User(username=username, email=email, is_operator=is_operator)
    try:
        validate_email(email)
        if check_password:
            validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from None
    user.set_password(password)
    user.save()
    record(actor, "create", "user", username, is_operator=is_operator)
    return user


@transaction.atomic
def create_team(actor: Actor, *, slug: str, name: str = "", owner: User | None = None) -> Team:
    """Add a team (operators only); `owner` (else the actor) becomes its first owner."""
    require_operator(actor)
    check_label(slug, "a team")
    if Team.objects.filter(slug=slug).exists():
        raise Conflict(f"Team {slug} exists already.", "Choose another name.")
    team = Team.objects.create(slug=slug, name=name or slug)
    first = owner or actor.user
    if first is not None:
        Membership.objects.create(user=first, team=team, role=Role.OWNER)
    record(actor, "create", "team", slug, team=slug, owner=first.username if first else "")
    return team


def _check_role(role: str) -> str:
    if role not in Role.values:
        raise Invalid(f"{role!r} is not a role.", f"Give one of {', '.join(Role.values)}.")
    return role


@transaction.atomic
def add_member(actor: Actor, team: Team, user: User, role: str) -> Membership:
    """Give a person a role in a team (owners and operators); raises Conflict when he is a member already."""
    require(actor, "admin", team, missing=f"There is no team {team.slug!r}.")
    row, fresh = Membership.objects.get_or_create(team=team, user=user, defaults={"role": _check_role(role)})
    if not fresh:
        raise Conflict(f"{user.username} is {row.role} in {team.slug} already.", "Change the role instead.")
    record(actor, "add_member", "user", user.username, team=team.slug, role=role)
    return row


def _keep_an_owner(row: Membership) -> None:
    others = Membership.objects.select_for_update().filter(team=row.team, role=Role.OWNER).exclude(pk=row.pk)
    if row.role == Role.OWNER and not list(others[:1]):
        raise Conflict(
            f"{row.user.username} is the last owner of {row.team.slug}.", "Make someone else an owner first."
        )


@transaction.atomic
def change_role(actor: Actor, membership: Membership, role: str) -> Membership:
    """Give a member another role; the last owner stays one (Conflict)."""
    require(actor, "admin", membership.team, missing="There is no such member.")
    if _check_role(role) != Role.OWNER:
        _keep_an_owner(membership)
    was, membership.role = membership.role, role
    membership.save(update_fields=["role"])
    record(actor, "change_role", "user", membership.user.username, team=membership.team.slug, was=was, role=role)
    hints.access_changed(membership.team_id)
    return membership


@transaction.atomic
def remove_member(actor: Actor, membership: Membership) -> None:
    """End a membership with its tokens; anyone may leave, the last owner may not (Conflict)."""
    if actor.user is None or actor.user.pk != membership.user_id:
        require(actor, "admin", membership.team, missing="There is no such member.")
    _keep_an_owner(membership)
    record(actor, "remove_member", "user", membership.user.username, team=membership.team.slug)
    hints.access_changed(membership.team_id)
    membership.delete()


def _check_scopes(scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in VERBS_OF_SCOPE]
    if unknown or not wanted:
        raise Invalid(
            f"Unknown scopes: {', '.join(unknown) or 'none given'}.", f"Give some of {', '.join(VERBS_OF_SCOPE)}."
        )
    return wanted


@transaction.atomic
def create_token(
    actor: Actor,
    membership: Membership,
    *,
    name: str,
    scopes: Iterable[str],
    app_slug: str = "",
    expires_at: dt.datetime | None = None,
) -> NewToken:
    """Make a token for a membership of the actor's own; through a token only with scopes and reach it has itself.

    Raises Forbidden for another person's membership or wider rights, Invalid for unknown scopes.
    """
    wanted = _check_scopes(scopes)
    if actor.user is not None and actor.user.pk != membership.user_id:
        raise Forbidden("Tokens are made by the person they act for.")
    reach = frozenset().union(*(VERBS_OF_SCOPE[scope] for scope in actor.scopes if scope in VERBS_OF_SCOPE))
    wider = [scope for scope in wanted if not VERBS_OF_SCOPE[scope] <= reach]
    elsewhere = actor.team_id not in (None, membership.team_id) or (actor.app_slug and actor.app_slug != app_slug)
    if actor.user is not None and (wider or elsewhere):
        raise Forbidden(
            "A token cannot make one with wider rights than its own.", "Sign in and make it on your profile page."
        )
    if "operator" in wanted and not membership.user.is_operator:
        raise Forbidden("Only an operator's token can have the scope operator.")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = ApiToken.objects.create(
        membership=membership,
        name=name[:80] or "token",
        prefix=secret[:12],
        digest=digest_of(secret),
        scopes=wanted,
        app_slug=app_slug,
        expires_at=expires_at,
    )
    record(actor, "create_token", "token", row.prefix, team=membership.team.slug, scopes=wanted, app=app_slug)
    return NewToken(row, secret)


@transaction.atomic
def revoke_token(actor: Actor, token: ApiToken) -> None:
    """End a token: its person may, and owners of its team."""
    own = actor.user is not None and actor.user.pk == token.membership.user_id
    if not own and not can(actor, "admin", token.membership.team):
        raise Forbidden("Only its person or an owner of the team may end this token.")
    record(actor, "revoke_token", "token", token.prefix, team=token.membership.team.slug)
    hints.access_changed(token.membership.team_id)
    token.delete()


def set_theme(actor: Actor, theme: str) -> None:
    """Remember how the person wants pages to look: system, light or dark."""
    if theme not in {"system", "light", "dark"}:
        raise Invalid(f"{theme!r} is not a theme.", "Give system, light or dark.")
    if actor.user is not None:
        User.objects.filter(pk=actor.user.pk).update(theme=theme)
