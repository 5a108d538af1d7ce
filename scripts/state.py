"""Where one platform keeps its things, and the environment its processes are given."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"
ADMIN_PASSWORD = "MOORAGE_ADMIN_PASSWORD"  # read by bootstrap alone
DATABASE_URL = "MOORAGE_DATABASE_URL"  # may hold a password; read by the portal's processes alone
REDIS_URL = "MOORAGE_REDIS_URL"  # may hold a password; read by the portal's processes, worker and agent
EMAIL_URL = "MOORAGE_EMAIL_URL"  # may hold a password; read by the portal's processes alone
SECRETS = frozenset({ADMIN_PASSWORD, DATABASE_URL, REDIS_URL, EMAIL_URL})


class SetupError(Exception):
    """Something that keeps the platform from starting or stopping: one sentence with the way out."""


@dataclass(frozen=True, slots=True)
class State:
    """One platform's folders and doors; everything else is derived from these."""

    folder: Path
    bind: str
    port: int
    domain: str
    portal_host: str
    redis_url: str  # empty: a private Valkey
    host: str

    @classmethod
    def from_environment(cls) -> State:
        """Read `MOORAGE_*` once; raises SetupError in the operator's words."""
        domain = os.environ.get("MOORAGE_DOMAIN", "localhost")
        text = os.environ.get("MOORAGE_PORT", "8080")
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise SetupError(f"MOORAGE_PORT is {text!r}: give a port from 1 to 65535.")
        return cls(
            folder=Path(os.environ.get("MOORAGE_STATE", "/var/lib/moorage")).absolute(),
            bind=os.environ.get("MOORAGE_BIND", "127.0.0.1" if domain == "localhost" else "0.0.0.0"),
            port=int(text),
            domain=domain,
            portal_host=os.environ.get("MOORAGE_PORTAL_HOST", "localhost"),
            redis_url=os.environ.get(REDIS_URL, ""),
            host=os.environ.get("MOORAGE_HOST_NAME", "local"),
        )

    @property
    def short(self) -> str:
        """8 hex digits that name this state folder in links, cgroups, tables and sockets."""
        return hashlib.sha256(os.path.realpath(self.folder).encode()).hexdigest()[:8]

    @property
    def binds(self) -> tuple[str, ...]:
        """Addresses that HAProxy's port is taken on (`worker.ingress.binds`)."""
        if self.bind == "127.0.0.1":
            return "127.0.0.1", "::1"
        return ("0.0.0.0", "::") if self.bind in ("0.0.0.0", "*", "::") else (self.bind,)

    @property
    def entrance(self) -> str:
        """Where this machine reaches that port: "address port"."""
        return f"{self.binds[0].replace('0.0.0.0', '127.0.0.1')} {self.port}"

    @property
    def run(self) -> Path:
        """Sockets (AF_UNIX paths end at 107 bytes, so they do not lie in the state folder)."""
        return Path("/run/moorage") / self.short

    @property
    def records(self) -> Path:
        """Pid records, supervisor's configuration and logs."""
        return self.folder / "run"

    @property
    def url(self) -> str:
        """The portal's address for people."""
        return f"http://{self.portal_host}" + ("" if self.port == 80 else f":{self.port}")

    def environment(self) -> dict[str, str]:
        """The environment of every process that goes on: the caller's without bootstrap's, with the platform's settings."""
        inherited = {name: value for name, value in os.environ.items() if name != ADMIN_PASSWORD}
        return inherited | self.settings()

    def plain_environment(self) -> dict[str, str]:
        """The same without anything that may hold a password."""
        return {name: value for name, value in self.environment().items() if name not in SECRETS}

    def settings(self) -> dict[str, str]:
        """What this platform's processes must be told."""
        redis = self.redis_url or f"unix://{self.run}/valkey.sock"
        return {
            "MOORAGE_STATE": str(self.folder),
            "MOORAGE_RUN": str(self.run),
            "MOORAGE_BIND": self.bind,
            "MOORAGE_PORT": str(self.port),
            "MOORAGE_DOMAIN": self.domain,
            "MOORAGE_PORTAL_HOST": self.portal_host,
            REDIS_URL: redis,
            "MOORAGE_HOST_NAME": self.host,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
        }

    def make_folders(self) -> None:
        """Create what every process expects, closed to other users."""
        for folder in (
            self.folder,
            self.records,
            self.records / "logs",
            self.folder / "valkey",
            self.folder / "haproxy",
            Path("/run/moorage"),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711 if folder == Path("/run/moorage") else 0o700)
        self.run.mkdir(mode=0o700, exist_ok=True)  # the ingress lets HAProxy's group through, and a living one stays in
