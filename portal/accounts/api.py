"""`/tokens` and `/teams`."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from portal.accounts.access import can, get_team, is_operator
from portal.accounts.actions import create_token, revoke_token
from portal.accounts.actor import Actor
from portal.accounts.models import ApiToken, Membership, Team
from portal.api_auth import acting
from portal.errors import NotFound

router = Router(tags=["accounts"])


class TokenIn(Schema):
    """A token to make. `team` may be left out by someone who is in one only."""

    name: str = "token"
    team: str = ""
    scopes: list[str]
    app: str = ""
    expires_at: dt.datetime | None = None


class TokenOut(Schema):
    """A token as it may be shown again."""

    id: int
    name: str
    prefix: str
    team: str
    scopes: list[str]
    app: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    last_used_at: dt.datetime | None


class NewTokenOut(TokenOut):
    """A token just made; `token` is shown this once."""

    token: str


class TeamOut(Schema):
    """A team and the caller's role in it."""

    team: str
    name: str
    role: str | None


class WhoOut(Schema):
    """Who the caller is, and what through."""

    user: str
    email: str
    operator: bool
    scopes: list[str]
    teams: list[TeamOut]


def token_body(row: ApiToken) -> dict[str, Any]:
    """A token row as TokenOut."""
    return {
        "id": row.pk,
        "name": row.name,
        "prefix": row.prefix,
        "team": row.membership.team.slug,
        "scopes": row.scopes,
        "app": row.app_slug,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
    }


def _teams(actor: Actor) -> list[dict[str, Any]]:
    memberships = Membership.objects.filter(user=actor.user).select_related("team").order_by("team__slug")
    if actor.team_id is not None and not is_operator(actor):
        memberships = memberships.filter(team=actor.team_id)
    roles = {row.team.slug: row.role for row in memberships}
    teams = Team.objects.order_by("slug") if is_operator(actor) else [row.team for row in memberships]
    return [{"team": team.slug, "name": team.name, "role": roles.get(team.slug)} for team in teams]


@router.get("/me", response=WhoOut, operation_id="me")
def me(request: HttpRequest) -> dict[str, Any]:
    """Who the token or session belongs to."""
    actor = acting(request)
    user = actor.user
    return {
        "user": user.username if user else "",
        "email": user.email if user else "",
        "operator": is_operator(actor),
        "scopes": sorted(actor.scopes),
        "teams": _teams(actor),
    }


@router.get("/teams", response=list[TeamOut], operation_id="list_teams")
def teams(request: HttpRequest) -> list[dict[str, Any]]:
    """The teams the caller is in; an operator sees all."""
    return _teams(acting(request))


def _membership(actor: Actor, team: str) -> Membership:
    rows = Membership.objects.select_related("team", "user").filter(user=actor.user)
    if team:
        rows = rows.filter(team=get_team(actor, team))
    elif actor.team_id is not None:
        rows = rows.filter(team=actor.team_id)
    found = list(rows.order_by("pk")[:2])
    if len(found) != 1:
        raise NotFound("You are in several teams or in none.", 'Name one: "team": "<slug>".', code="team_needed")
    return found[0]


@router.get("/tokens", response=list[TokenOut], operation_id="list_tokens")
def tokens(request: HttpRequest) -> list[dict[str, Any]]:
    """The caller's own tokens."""
    rows = ApiToken.objects.select_related("membership__team").filter(membership__user=acting(request).user)
    return [token_body(row) for row in rows.order_by("pk")]


@router.post("/tokens", response={201: NewTokenOut}, operation_id="create_token")
def make_token(request: HttpRequest, body: TokenIn) -> Status[Any]:
    """Make a token. Its secret is in this answer and nowhere else, so an Idempotency-Key is not kept here."""
    actor = acting(request)
    new = create_token(
        actor,
        _membership(actor, body.team),
        name=body.name,
        scopes=body.scopes,
        app_slug=body.app,
        expires_at=body.expires_at,
    )
    return Status(201, token_body(new.row) | {"token": new.secret})


@router.delete("/tokens/{token_id}", response={204: None}, operation_id="revoke_token")
def end_token(request: HttpRequest, token_id: int) -> Status[None]:
    """End a token of the caller's, or, for an owner, of his team's."""
    actor = acting(request)
    row = ApiToken.objects.select_related("membership__team", "membership__user").filter(pk=token_id).first()
    if row is None or not (actor.user == row.membership.user or can(actor, "admin", row.membership.team)):
        raise NotFound(f"There is no token {token_id}.")
    revoke_token(actor, row)
    return Status(204, None)
