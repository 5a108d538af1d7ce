"""Database work from asynchronous code: a small pool of threads whose connections stay open."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from channels.db import database_sync_to_async

_pool = ThreadPoolExecutor(4, thread_name_prefix="rows")


async def in_thread[**P, R](function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in the pool; what it raises is raised here."""
    result: R = await database_sync_to_async(function, thread_sensitive=False, executor=_pool)(*args, **kwargs)
    return result
