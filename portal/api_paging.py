"""Cursor pagination: pages stay right while rows come and go."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from django.db.models import Model, QuerySet

from portal.errors import Invalid

LIMIT_MAX = 200


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(cursor: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise Invalid("The cursor is not one of ours.", "Take `next` from the answer before.") from None


def page[M: Model](rows: QuerySet[M], *, by: str, cursor: str = "", limit: int = 50) -> tuple[list[M], str | None]:
    """Up to `limit` rows in order of the unique field `by` ("slug", "-number") after `cursor`, and the next cursor or None."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid(f"limit is {limit}: give a number from 1 to {LIMIT_MAX}.")
    name = by.lstrip("-")
    if cursor:
        value = _decode(cursor)
        if not isinstance(value, str | int):
            raise Invalid("The cursor is not one of ours.", "Take `next` from the answer before.")
        rows = rows.filter(**{f"{name}__{'lt' if by.startswith('-') else 'gt'}": value})
    found = list(rows.order_by(by)[: limit + 1])
    if len(found) <= limit:
        return found, None
    return found[:limit], _encode(getattr(found[limit - 1], name))
