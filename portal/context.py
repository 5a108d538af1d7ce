"""What every template may use beside its own context."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from portal.config import config


def platform(request: HttpRequest) -> dict[str, Any]:
    """`platform`: the PortalConfig (domain, public_url, …)."""
    return {"platform": config()}
