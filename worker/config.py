"""A host worker's environment, read once into a frozen object that refuses bad values in the operator's words."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worker.errors import ConfigFault

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One host: where its state lies, where the portal and Redis are, what the ingress listens on. Paths are absolute."""

    state: Path
    run: Path
    host: str
    bind: str
    port: int
    domain: str
    scheme: str
    portal_host: str
    portal_url: str
    redis_url: str
    registry: str
    token_file: Path

    @property
    def engine_socket(self) -> Path:
        """The Docker Engine API of this host."""
        return self.state / "engine.sock"

    @property
    def haproxy(self) -> Path:
        """Folder of the ingress's files: they are the truth, HAProxy comes up with them."""
        return self.state / "haproxy"

    @property
    def haproxy_socket(self) -> Path:
        """HAProxy's admin socket (level admin)."""
        return self.run / "haproxy.sock"

    @property
    def haproxy_master(self) -> Path:
        """The command line of HAProxy's master process; `reload` is said here."""
        return self.run / "haproxy-master.sock"

    @property
    def web_socket(self) -> Path:
        """Where the portal on this machine listens."""
        return self.run / "web.sock"

    @property
    def memory(self) -> Path:
        """Folder of what the worker remembers over its own restarts: the last desired state (0600) and restarts done."""
        return self.state / "worker"

    def token(self) -> str:
        """The host's Bearer token; raises ConfigFault when its file is missing or empty."""
        try:
            text = self.token_file.read_text().strip()
        except OSError as error:
            raise ConfigFault(
                f"The host token {self.token_file} cannot be read: {error.strerror}.", "Run `manage.py bootstrap`."
            ) from error
        if not text:
            raise ConfigFault(f"The host token {self.token_file} is empty.", "Delete it and run `manage.py bootstrap`.")
        return text


def short_id(state: Path) -> str:
    """First 8 hex digits of the SHA-256 of the real path: what keeps two platforms on one machine apart."""
    return hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:8]


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigFault(f"MOORAGE_PORT is {text!r}.", "Give a number from 1 to 65535.")
    return int(text)


def _name(variable: str, text: str) -> str:
    if not NAME.fullmatch(text):
        raise ConfigFault(f"{variable} is {text!r}.", "Give a name of lower-case letters, digits, dots and hyphens.")
    return text


def _scheme(text: str) -> str:
    if text not in {"http", "https"}:
        raise ConfigFault(f"MOORAGE_SCHEME is {text!r}.", "Give http, or https when TLS ends in front of this host.")
    return text


def _portal_url(text: str) -> str:
    if not text.startswith(("unix:/", "http://", "https://")):
        raise ConfigFault(f"MOORAGE_PORTAL_URL is {text!r}.", "Give unix:/path/to.sock, http://… or https://….")
    return text.rstrip("/")


def load(environ: Mapping[str, str] = os.environ) -> WorkerConfig:
    """Read the MOORAGE_* variables; raises ConfigFault with a sentence."""
    state = Path(environ.get("MOORAGE_STATE", "/var/lib/moorage"))
    if not state.is_absolute():
        raise ConfigFault(f"MOORAGE_STATE is {str(state)!r}.", "Give an absolute path.")
    run = Path(environ.get("MOORAGE_RUN", f"/run/moorage/{short_id(state)}"))
    port = _port(environ.get("MOORAGE_PORT", "8080"))
    domain = _name("MOORAGE_DOMAIN", environ.get("MOORAGE_DOMAIN", "localhost"))
    return WorkerConfig(
        state=state,
        run=run,
        host=_name("MOORAGE_HOST_NAME", environ.get("MOORAGE_HOST_NAME", "local")),
        bind=environ.get("MOORAGE_BIND", "127.0.0.1" if domain == "localhost" else "0.0.0.0"),
        port=port,
        domain=domain,
        scheme=_scheme(environ.get("MOORAGE_SCHEME", "http")),
        portal_host=_name("MOORAGE_PORTAL_HOST", environ.get("MOORAGE_PORTAL_HOST", "localhost")),
        portal_url=_portal_url(environ.get("MOORAGE_PORTAL_URL", f"unix:{run}/web.sock")),
        redis_url=environ.get("MOORAGE_REDIS_URL", f"unix://{run}/valkey.sock"),
        registry=environ.get("MOORAGE_REGISTRY", f"127.0.0.1:{port}"),
        token_file=Path(environ.get("MOORAGE_HOST_TOKEN_FILE", f"{state}/portal/secrets/host_token")),
    )


@cache
def config() -> WorkerConfig:
    """The process's configuration."""
    return load()
