"""Where django-allauth and django-axes ask us."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """People are added by an operator or a team owner; nobody signs up by himself."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never."""
        return False


def client_address(request: HttpRequest) -> str:
    """The address HAProxy saw: uvicorn has put it into the scope from the header HAProxy wrote."""
    return str(request.META.get("REMOTE_ADDR") or "unknown")
