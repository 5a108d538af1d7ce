"""`Idempotency-Key` on POST: the second call with the same key gets the first one's answer and does nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Status

from portal.accounts.models import KeptAnswer
from portal.api_auth import acting
from portal.errors import Conflict, Invalid

KEY_MAX = 100
ABANDONED_AFTER = dt.timedelta(minutes=2)


def _digest(request: HttpRequest) -> str:
    parts = (request.method or "", request.get_full_path(), request.body.decode("latin-1"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _claim(request: HttpRequest, key: str) -> KeptAnswer | HttpResponse:
    """The row to fill in, or the answer kept in it."""
    user, digest = acting(request).user, _digest(request)
    if user is None:
        raise Invalid("The platform itself needs no Idempotency-Key.")
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(user=user, key=key, request_digest=digest)
    except IntegrityError:
        row = KeptAnswer.objects.get(user=user, key=key)
    if row.request_digest != digest:
        raise Conflict("This Idempotency-Key was used for another call.", "Make a new one.", code="key_reused")
    if row.status:
        return JsonResponse(row.body, status=row.status, safe=False, headers={"Idempotency-Replayed": "true"})
    if timezone.now() - row.created_at < ABANDONED_AFTER:
        raise Conflict(
            "The first call with this Idempotency-Key is under way.", "Ask again in a moment.", code="under_way"
        )
    return row


def idempotent(operation: Callable[..., tuple[int, Any]]) -> Callable[..., Any]:
    """For operations that return `(status, JSON-ready body)`. A refusal is not kept: the caller may try again."""

    @wraps(operation)
    def kept(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return Status(*operation(request, *args, **kwargs))
        if len(key) > KEY_MAX:
            raise Invalid(f"Idempotency-Key has {len(key)} characters; the most is {KEY_MAX}.")
        row = _claim(request, key)
        if isinstance(row, HttpResponse):
            return row
        done = False
        try:
            status, body = operation(request, *args, **kwargs)
            done = True
        finally:
            if not done:
                row.delete()
        KeptAnswer.objects.filter(pk=row.pk).update(status=status, body=_plain(body))
        return Status(status, body)

    # ninja resolves annotations in the wrapper's module, where the operation's names are unknown: hand them over resolved.
    kept.__signature__ = inspect.signature(operation, eval_str=True)  # type: ignore[attr-defined]
    return kept


def _plain(body: Any) -> Any:
    return json.loads(json.dumps(body, cls=DjangoJSONEncoder))
