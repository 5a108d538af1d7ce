"""MOORAGE_EMAIL_URL as Django's EMAIL_* settings."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings

from portal.config import ConfigError

# scheme: usual port, TLS from the first byte, TLS by STARTTLS
SCHEMES = {"smtp": (25, False, False), "smtp+starttls": (587, False, True), "smtps": (465, True, False)}
TIMEOUT_S = 10


def is_sent() -> bool:
    """Whether the platform has a mail server."""
    return bool(settings.EMAIL_HOST)


def mail_from_url(url: str) -> dict[str, Any]:
    """`smtps://user:password@host:port`; names of settings → values. "": no mail is sent. Raises ConfigError."""
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend", "EMAIL_HOST": ""}
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"MOORAGE_EMAIL_URL begins with {parts.scheme!r}: give {', '.join(SCHEMES)}.")
    try:
        port = parts.port
    except ValueError:
        raise ConfigError("MOORAGE_EMAIL_URL has a port that is none: give a number from 1 to 65535.") from None
    if not parts.hostname:
        raise ConfigError("MOORAGE_EMAIL_URL names no host: write smtps://user:password@mail.example.org.")
    usual_port, tls, starttls = SCHEMES[parts.scheme]
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": port or usual_port,
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": tls,
        "EMAIL_USE_TLS": starttls,
        "EMAIL_TIMEOUT": TIMEOUT_S,
    }
