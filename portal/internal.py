"""What hosts ask: `/internal/v1/hosts/{host}/desired|report|events|backups|restores`, with the host's own token."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from portal.accounts.access import bearer_of
from portal.errors import Invalid, PortalError, problem_response
from portal.fleet.access import host_of_token
from portal.fleet.models import Host
from portal.releases.desired import desired_of
from portal.releases.report import apply_report
from portal.telemetry.actions import record_limit_hits
from portal.volumes import host_calls
from worker.protocol import LimitHit, Report

type HostView = Callable[..., HttpResponseBase]


def _for_host(method: str) -> Callable[[HostView], Callable[..., HttpResponseBase]]:
    """Let in the host alone, and turn refusals into problem+json."""

    def decorate(view: HostView) -> Callable[..., HttpResponseBase]:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, host: str, **names: Any) -> HttpResponseBase:
            try:
                row = host_of_token(host, bearer_of(request.headers.get("Authorization", "")))
                if request.method != method:
                    raise PortalError(f"Use {method}.", code="method_not_allowed", status=405)
                return view(request, row, **names)
            except PortalError as error:
                return problem_response(error)

        return guarded

    return decorate


def _json(request: HttpRequest) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        raise Invalid("The body is not JSON.") from None


@_for_host("GET")
def desired(request: HttpRequest, host: Host) -> HttpResponse:
    """The host's Desired, or 304 when `If-None-Match` names its generation."""
    now = desired_of(host)
    tag = f'"{now.generation}"'
    if request.headers.get("If-None-Match", "").strip() in {tag, now.generation}:
        return HttpResponse(status=304, headers={"ETag": tag})
    return JsonResponse(now.to_json(), headers={"ETag": tag, "Cache-Control": "no-store"})


@_for_host("POST")
def report(request: HttpRequest, host: Host) -> HttpResponse:
    """Take a Report; the answer carries the next Desired."""
    try:
        seen = Report.from_json(_json(request))
    except (TypeError, AttributeError, KeyError) as error:
        raise Invalid(f"This is not a report: {error}.") from None
    if seen.host != host.name:
        raise Invalid(f"A report of {seen.host} with the token of {host.name}.")
    return JsonResponse(apply_report(host, seen), headers={"Cache-Control": "no-store"})


@_for_host("POST")
def events(request: HttpRequest, host: Host) -> HttpResponse:
    """Take a list of LimitHit; telemetry keeps them."""
    try:
        hits = [LimitHit.from_json(item) for item in _json(request)]
    except (TypeError, AttributeError, KeyError) as error:
        raise Invalid(f"This is not a list of limit hits: {error}.") from None
    record_limit_hits(host, hits)
    return HttpResponse(status=204)


missing_chunks = _for_host("POST")(host_calls.missing)
backup_chunk = _for_host("POST")(host_calls.chunk)
backup_end = _for_host("POST")(host_calls.end_backup)
restore_content = _for_host("GET")(host_calls.content)
restore_end = _for_host("POST")(host_calls.end_restore)
