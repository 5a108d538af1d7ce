"""What hosts say about limits: `POST /internal/v1/hosts/{host}/events`, a JSON list of `protocol.LimitHit`."""

from __future__ import annotations

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from portal.accounts.access import bearer_of
from portal.errors import Invalid
from portal.fleet.access import host_of_token
from portal.telemetry.actions import record_limit_hits
from worker.protocol import LimitHit


@csrf_exempt
@require_POST
def events(request: HttpRequest, host: str) -> JsonResponse:
    """Keep the hits; answers `{"recorded": <new rows>}`."""
    row = host_of_token(host, bearer_of(request.headers.get("authorization", "")))
    try:
        hits = [LimitHit.from_json(item) for item in json.loads(request.body)]
    except (ValueError, TypeError, AttributeError):
        raise Invalid("The body must be a JSON list of limit hits.") from None
    return JsonResponse({"recorded": record_limit_hits(row, hits)})
