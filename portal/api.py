"""The REST API: one router per app, one way of saying no, and its own description at `/api/v1/openapi.json`."""

from __future__ import annotations

import logging
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import ValidationError

from portal.accounts.api import router as accounts
from portal.api_auth import ApiAuth
from portal.api_openapi import describe
from portal.audit.api import router as audit
from portal.errors import Invalid, NotFound, PortalError, problem_response, refusal_of
from portal.fleet.api import router as fleet
from portal.plans.api import router as plans
from portal.releases.api import router as releases
from portal.releases.api_volumes import router as app_volumes
from portal.telemetry.api import router as telemetry
from portal.volumes.api import router as volumes
from portal.volumes.api_backups import router as backups

log = logging.getLogger(__name__)


class PortalApi(NinjaAPI):
    """NinjaAPI whose description includes the operations that raw ASGI applications answer."""

    def get_openapi_schema(self, **options: Any) -> Any:
        """OpenAPI 3.1."""
        return describe(super().get_openapi_schema(**options))


api = PortalApi(
    title="Moorage",
    version="1",
    description="Deploy, run and look at apps. Errors are application/problem+json with stable codes.",
    auth=ApiAuth(),
    docs_url=None,
    urls_namespace="api",
)
for _router in (accounts, releases, plans, volumes, backups, app_volumes, fleet, telemetry, audit):
    api.add_router("", _router)


@api.exception_handler(PortalError)
def _refused(request: HttpRequest, error: PortalError) -> HttpResponse:
    return problem_response(error)


@api.exception_handler(Exception)
def _failed(request: HttpRequest, error: Exception) -> HttpResponse:
    if (refusal := refusal_of(error)) is not None:
        return problem_response(refusal)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    sorry = PortalError(
        "The portal failed at this; the reason is in the web process's log.", code="internal", status=500
    )
    return problem_response(sorry)


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    """Every other address below /api/: programs get problem+json there, not a page."""
    return problem_response(NotFound(f"There is nothing at {request.path}.", "See /api/v1/openapi.json."))


@api.exception_handler(Http404)
def _missing(request: HttpRequest, error: Http404) -> HttpResponse:
    return problem_response(NotFound("There is nothing at this address."))


@api.exception_handler(ValidationError)
def _unusable(request: HttpRequest, error: ValidationError) -> HttpResponse:
    fields = [
        {"field": ".".join(str(part) for part in item["loc"][1:]), "message": item["msg"]} for item in error.errors
    ]
    text = "; ".join(f"{f['field']}: {f['message']}" for f in fields)
    return problem_response(Invalid(f"The request cannot be used: {text}.", extra={"fields": fields}))
