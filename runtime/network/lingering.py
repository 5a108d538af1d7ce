"""Links that the kernel is to take along with their namespace, in the background: those it forgot are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINGER_S = 2.0


class Lingering:
    """Calls `delete` for each link that is still expected to go after LINGER_S."""

    def __init__(self, delete: Callable[[str], object]) -> None:
        self._delete = delete
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def expect_gone(self, link: str) -> None:
        """The link's other end has gone."""
        self._timers[link] = asyncio.get_running_loop().call_later(LINGER_S, self._over, link)

    def _over(self, link: str) -> None:
        self._timers.pop(link, None)
        self._delete(link)

    def close(self) -> None:
        """Delete nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
