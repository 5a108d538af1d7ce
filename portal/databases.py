"""MOORAGE_DATABASE_URL as Django's DATABASES entry."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from portal.config import ConfigError

_SQLITE_INIT = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=67108864"


def _sqlite(path: str) -> dict[str, Any]:
    if not path.startswith("/"):
        raise ConfigError(f"MOORAGE_DATABASE_URL: {path!r} is not an absolute path; write sqlite:///var/lib/….")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "CONN_MAX_AGE": None,
        # IMMEDIATE: a transaction that reads first and then writes would otherwise fail with "database is locked" at once.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": _SQLITE_INIT},
    }


def database_from_url(url: str) -> dict[str, Any]:
    """`sqlite:///path` or `postgresql://user:password@host:port/name?host=/socket/folder`; raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _sqlite(unquote(parts.path))
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ConfigError(f"MOORAGE_DATABASE_URL begins with {parts.scheme!r}: give sqlite:// or postgresql://.")
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or query.get("user", "")),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.get("host", parts.hostname or ""),
        "PORT": str(parts.port or query.get("port", "")),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
