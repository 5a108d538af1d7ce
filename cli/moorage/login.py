"""Where the portal is and who asks: from the environment, else from what `moorage login` kept."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from moorage.faults import Fault


@dataclass(frozen=True, slots=True)
class Login:
    """A portal's address without a slash at the end, and an API token."""

    url: str
    token: str


def path() -> Path:
    """`$XDG_CONFIG_HOME/moorage/login.json`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "moorage" / "login.json"


def load() -> Login:
    """The login; raises Fault when there is none."""
    url, token = os.environ.get("MOORAGE_URL", ""), os.environ.get("MOORAGE_TOKEN", "")
    if not (url and token):
        try:
            kept = json.loads(path().read_text())
            url, token = url or kept["url"], token or kept["token"]
        except (OSError, ValueError, KeyError, TypeError):
            raise Fault(
                "You are not logged in.", "Run `moorage login <url>`, or set MOORAGE_URL and MOORAGE_TOKEN."
            ) from None
    return Login(url.rstrip("/"), token)


def save(login: Login) -> None:
    """Keep it where its owner alone can read it, from the first byte on."""
    target = path()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(login), file)
    draft.replace(target)
