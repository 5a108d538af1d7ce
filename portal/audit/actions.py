"""Writing the audit trail."""

from __future__ import annotations

from typing import Any, Protocol

from portal.audit.models import Entry


class Acts(Protocol):
    """What of an `accounts.actor.Actor` an audit row needs; audit imports no other app."""

    @property
    def user(self) -> Any:
        """The person, None for the platform."""
        ...

    @property
    def door(self) -> str:
        """page, api, push, cli or system."""
        ...


def record(actor: Acts, verb: str, kind: str, name: str, /, *, team: str = "", **details: Any) -> Entry:
    """Write that `actor` did `verb` to the `kind` called `name`. `details` must hold no secret's value."""
    return Entry.objects.create(
        user=actor.user,
        team_slug=team,
        verb=verb,
        object_kind=kind,
        object_name=name,
        door=actor.door,
        details=details,
    )
