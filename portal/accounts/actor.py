"""Who acts: the one thing every action, access function and audit row is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from portal.accounts.models import User

type Door = Literal["page", "api", "push", "cli", "system"]

ALL_SCOPES = frozenset({"read", "deploy", "write", "operator"})


@dataclass(frozen=True, slots=True)
class Actor:
    """A user through a door. `scopes` narrow what a token may do; `team_id` and `app_slug` where it may do it."""

    user: User | None  # None is the platform itself
    door: Door
    scopes: frozenset[str] = ALL_SCOPES
    team_id: int | None = None
    app_slug: str = ""


SYSTEM = Actor(user=None, door="system")
