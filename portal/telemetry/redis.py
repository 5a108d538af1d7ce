"""The synchronous Redis client of this process, for history, minute rows and the figures of /metrics."""

from __future__ import annotations

import os
from functools import cache

from redis import Redis

from portal.config import config


@cache
def _client(pid: int) -> Redis:
    return Redis.from_url(config().redis_url, socket_timeout=5, health_check_interval=30)


def client() -> Redis:
    """One pool a process; a fork gets its own."""
    return _client(os.getpid())
