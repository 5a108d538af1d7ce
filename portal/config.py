"""The portal's environment, read once into a frozen object that refuses bad values in the operator's words."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class ConfigError(Exception):
    """An environment variable holds something the portal cannot use; the message names it and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalConfig:
    """Where things lie and what they are called. Paths are absolute; `domain` is the parent of the apps' names."""

    state: Path
    run: Path
    bind: str
    port: int
    domain: str
    scheme: str
    portal_host: str
    portal_url: str
    database_url: str
    blobs_url: str  # "" for files below the state; else s3://… (images.objects)
    redis_url: str
    email_url: str  # "" where the platform sends no mail
    email_from: str
    host_name: str
    registry: str

    @property
    def portal_dir(self) -> Path:
        """Everything the portal keeps on disk."""
        return self.state / "portal"

    @property
    def secrets(self) -> Path:
        """Folder of the 0600 files `secret_key`, `fernet_keys`, `host_token`."""
        return self.portal_dir / "secrets"

    def app_host(self, slug: str) -> str:
        """The host name of an app, without a port."""
        return f"{slug}.{self.domain}"

    def app_url(self, slug: str) -> str:
        """Where people reach an app."""
        return f"{self.scheme}://{self._with_port(self.app_host(slug))}/"

    @property
    def public_url(self) -> str:
        """Where people reach the portal, without a slash at the end."""
        return f"{self.scheme}://{self._with_port(self.portal_host)}"

    def _with_port(self, name: str) -> str:
        usual = {"http": 80, "https": 443}[self.scheme]
        return name if self.port == usual else f"{name}:{self.port}"


def short_id(state: Path) -> str:
    """First 8 hex digits of the SHA-256 of the real path: what keeps two platforms on one machine apart."""
    return hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:8]


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(f"MOORAGE_PORT is {text!r}: give a number from 1 to 65535.")
    return int(text)


def _name(variable: str, text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", text):
        raise ConfigError(f"{variable} is {text!r}: give a host name of lower-case letters, digits, dots and hyphens.")
    return text


def _scheme(text: str) -> str:
    if text not in {"http", "https"}:
        raise ConfigError(f"MOORAGE_SCHEME is {text!r}: give http, or https when TLS ends in front of the portal.")
    return text


def load(environ: Mapping[str, str] = os.environ) -> PortalConfig:
    """Read the MOORAGE_* variables; raises ConfigError with a sentence."""
    state = Path(environ.get("MOORAGE_STATE", "/var/lib/moorage"))
    if not state.is_absolute():
        raise ConfigError(f"MOORAGE_STATE is {str(state)!r}: give an absolute path.")
    run = Path(environ.get("MOORAGE_RUN", f"/run/moorage/{short_id(state)}"))
    port = _port(environ.get("MOORAGE_PORT", "8080"))
    domain = _name("MOORAGE_DOMAIN", environ.get("MOORAGE_DOMAIN", "localhost"))
    portal_host = _name("MOORAGE_PORTAL_HOST", environ.get("MOORAGE_PORTAL_HOST", "localhost"))
    return PortalConfig(
        state=state,
        run=run,
        bind=environ.get("MOORAGE_BIND", "127.0.0.1" if domain == "localhost" else "0.0.0.0"),
        port=port,
        domain=domain,
        scheme=_scheme(environ.get("MOORAGE_SCHEME", "http")),
        portal_host=portal_host,
        portal_url=environ.get("MOORAGE_PORTAL_URL", f"unix:{run}/web.sock"),
        database_url=environ.get("MOORAGE_DATABASE_URL", f"sqlite://{state}/portal/db.sqlite3"),
        blobs_url=environ.get("MOORAGE_BLOBS_URL", ""),
        redis_url=environ.get("MOORAGE_REDIS_URL", f"unix://{run}/valkey.sock"),
        email_url=environ.get("MOORAGE_EMAIL_URL", ""),
        email_from=environ.get("MOORAGE_EMAIL_FROM", f"Moorage <moorage@{portal_host}>"),
        host_name=environ.get("MOORAGE_HOST_NAME", "local"),
        registry=environ.get("MOORAGE_REGISTRY", f"127.0.0.1:{port}"),
    )


@cache
def config() -> PortalConfig:
    """The process's configuration."""
    return load()
