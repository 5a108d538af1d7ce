"""`/audit`: who did what. An operator sees all, an owner his team's."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from portal.api_auth import acting
from portal.api_paging import page
from portal.audit.access import visible_entries
from portal.audit.models import Entry

router = Router(tags=["audit"])


class EntryOut(Schema):
    """One action."""

    id: int
    at: dt.datetime
    user: str | None
    team: str
    verb: str
    object_kind: str
    object_name: str
    door: str
    details: dict[str, Any]


class EntriesOut(Schema):
    """A page of actions, newest first."""

    items: list[EntryOut]
    next: str | None


def _body(row: Entry) -> dict[str, Any]:
    names = ("at", "verb", "object_kind", "object_name", "door", "details")
    user = row.user.username if row.user else None
    return {"id": row.pk, "user": user, "team": row.team_slug} | {name: getattr(row, name) for name in names}


@router.get("/audit", response=EntriesOut, operation_id="list_audit")
def entries(request: HttpRequest, team: str = "", cursor: str = "", limit: int = 50) -> dict[str, Any]:
    """What was done; `team` narrows it."""
    rows, following = page(visible_entries(acting(request), team), by="-id", cursor=cursor, limit=limit)
    return {"items": [_body(row) for row in rows], "next": following}
