"""What the portal refuses and why: one base error, shown once, at the boundary (page, API, raw ASGI)."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist

_FULL = re.compile(r"database or disk is full|No space left on device")  # as SQLite and PostgreSQL say it


class PortalError(Exception):
    """A refusal. `message` is a sentence with the figure, `hint` the way out, `code` stable for programs."""

    code = "error"
    status = 400

    def __init__(
        self, message: str, hint: str = "", *, code: str = "", status: int = 0, extra: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.status = status or type(self).status
        self.extra = extra or {}

    def problem(self) -> dict[str, Any]:
        """RFC 9457 members, as JSON-ready values."""
        body: dict[str, Any] = {
            "type": f"urn:moorage:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            "detail": self.message,
        }
        if self.hint:
            body["hint"] = self.hint
        return body | self.extra


class NotFound(PortalError):
    """It does not exist, or the asker may not know that it does."""

    code = "not_found"
    status = 404


class Unauthenticated(PortalError):
    """Nobody is signed in, or the token is unknown or expired."""

    code = "unauthenticated"
    status = 401


class Forbidden(PortalError):
    """A member without the right."""

    code = "forbidden"
    status = 403


class Conflict(PortalError):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409


class Invalid(PortalError):
    """A value that cannot be used."""

    code = "invalid"
    status = 422


class OverQuota(PortalError):
    """A plan or a team quota does not allow this; the message has the figures."""

    code = "over_quota"
    status = 422


class NoSpace(PortalError):
    """The portal's own disk is full."""

    code = "disk_full"
    status = 507


def refusal_of(error: BaseException) -> PortalError | None:
    """What a person is told of an error: a refusal is one, a full disk becomes one, whoever met it; else None."""
    if isinstance(error, PortalError):
        return error
    no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if no_space or (isinstance(error, DatabaseError) and _FULL.search(str(error))):
        return NoSpace(
            "The platform's disk is full.", "Nothing was changed. Ask the operator to make room, then try again."
        )
    return None


def problem_response(error: PortalError) -> JsonResponse:
    """The error as `application/problem+json`."""
    response = JsonResponse(error.problem(), status=error.status, content_type="application/problem+json")
    if error.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="moorage"'
    return response


_FOR_PROGRAMS = ("/api/", "/internal/")


def _in_problem_details(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """What Django or ninja answer themselves to an unknown path or method, in the words programs read."""
    told = response.headers.get("Content-Type", "").startswith("application/problem+json")
    if told or not request.path.startswith(_FOR_PROGRAMS):
        return response
    if response.status_code == 404:
        return problem_response(NotFound("There is nothing at this address."))
    if response.status_code == 405:
        allowed = response.headers.get("Allow", "")
        hint = f"Use {allowed}." if allowed else "The API's description lists what it answers to."
        problem = problem_response(
            PortalError(f"{request.method} is not answered here.", hint, code="method_not_allowed", status=405)
        )
        if allowed:
            problem["Allow"] = allowed
        return problem
    return response


def error_page(request: HttpRequest, error: PortalError) -> HttpResponse:
    """The error as `error.html` (context: `error`), or as problem+json where programs ask."""
    if request.path.startswith(_FOR_PROGRAMS):
        return problem_response(error)
    try:
        return render(request, "error.html", {"error": error}, status=error.status)
    except TemplateDoesNotExist:
        text = f"{error.message} {error.hint}".strip()
        return HttpResponse(text, status=error.status, content_type="text/plain; charset=utf-8")


class PortalErrorMiddleware:
    """Turns a PortalError raised by a page into `error.html` with its status; the API has its own handler for those.

    For the API, what Django and ninja answer themselves becomes problem details too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return _in_problem_details(request, self.get_response(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Called by Django when a view raised."""
        refusal = refusal_of(exception)
        return None if refusal is None else error_page(request, refusal)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Shown when a form's CSRF token is missing or stale."""
    error = Forbidden("This form is out of date.", "Reload the page and send it again.", code="csrf")
    return error_page(request, error)
