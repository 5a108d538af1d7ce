"""The platform's own secrets: three 0600 files, and encryption with the keys in one of them."""

from __future__ import annotations

import contextlib
import os
import secrets
from functools import cache
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet

from portal.config import ConfigError, config

NAMES = ("secret_key", "fernet_keys", "host_token")


def _fresh(name: str) -> str:
    return Fernet.generate_key().decode() if name == "fernet_keys" else secrets.token_urlsafe(48)


def ensure(folder: Path) -> None:
    """Make the folder (0700) and every secret that is missing; what exists is left alone. Safe to run twice at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in NAMES:
        path = folder / name
        if path.exists():
            continue
        fresh = folder / f".{name}.{os.getpid()}"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(_fresh(name) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()


def read(name: str, folder: Path | None = None) -> str:
    """One secret's text; raises ConfigError with the way out when it was never made."""
    path = (folder or config().secrets) / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing. Run `manage.py bootstrap`, which makes it.") from None


@cache
def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(line) for line in read("fernet_keys").split()])


def encrypt(plain: bytes) -> bytes:
    """Encrypt with the first key of `fernet_keys`."""
    return _fernet().encrypt(plain)


def decrypt(token: bytes | memoryview) -> bytes:
    """Decrypt with whichever of the keys fits; raises cryptography.fernet.InvalidToken when none does."""
    return _fernet().decrypt(bytes(token))


def rotate(token: bytes | memoryview) -> bytes:
    """The same secret under the first key: put a new key on top of `fernet_keys`, rotate all rows, drop the old key."""
    return _fernet().rotate(bytes(token))


def forget_keys() -> None:
    """Read `fernet_keys` anew at the next use."""
    _fernet.cache_clear()
