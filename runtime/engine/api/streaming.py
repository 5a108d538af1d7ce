"""Marks handlers that end when their client leaves; all others run to their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


def streams[F: Callable[..., Awaitable[Any]]](handler: F) -> F:
    """Mark a handler whose work is only for the client that listens: it is cancelled when the client goes."""
    handler.streams = True  # type: ignore[attr-defined]
    return handler
