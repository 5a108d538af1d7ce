"""Where django-allauth and django-axes ask us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest, HttpResponse

from portal.accounts.models import User
from portal.errors import PortalError, error_page


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """People are added by an operator or a team owner; nobody signs up by himself."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never."""
        return False


def client_address(request: HttpRequest) -> str:
    """The address HAProxy saw: uvicorn has put it into the scope from the header HAProxy wrote."""
    return str(request.META.get("REMOTE_ADDR") or "unknown")


def attempted_username(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str:
    """Whose account is being tried: one name for a person, whether it was given as name or as address."""
    given = credentials or request.POST
    name = str(given.get("username") or given.get("email") or given.get("login") or "")[:254]
    if "@" in name:
        name = User.objects.filter(email__iexact=name).values_list("username", flat=True).first() or name
    return name.lower()


def locked_out(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """The answer to an attempt after too many."""
    error = PortalError(
        "Too many wrong passwords for this name from your address.",
        "Wait a quarter of an hour and try again.",
        code="locked_out",
        status=429,
    )
    return error_page(request, error)
