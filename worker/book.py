"""What this host knows of its instances: the one place their observed states live, used in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from worker.protocol import Observed, ObservedInstance

ENDED: frozenset[Observed] = frozenset({"exited", "failed"})
JUDGED: frozenset[Observed] = frozenset({"healthy", "unhealthy", "failed"})
PASSING: frozenset[Observed] = frozenset({"pulling", "creating", "starting", "checking", "draining"})
RETRY_S = 15.0


class Book:
    """Observed states by instance id. `changed(urgent)` is called after each change; passing states are not urgent."""

    def __init__(self, changed: Callable[[bool], None], clock: Callable[[], float] = time.time) -> None:
        self._changed = changed
        self._clock = clock
        self._known: dict[str, ObservedInstance] = {}

    def get(self, name: str) -> ObservedInstance | None:
        """What is known of an instance."""
        return self._known.get(name)

    def state(self, name: str) -> Observed:
        """Its state; absent when nothing is known."""
        found = self._known.get(name)
        return found.state if found else "absent"

    def set(self, name: str, state: Observed, **fields: Any) -> None:
        """Note a state. A new state clears reason and last log unless they are given; other fields stay."""
        old = self._known.get(name) or ObservedInstance(id=name, state="absent")
        if old.state != state:
            fields = {"reason": "", "last_log": (), "since": self._clock(), **fields}
        new = replace(old, state=state, **fields)
        if new != old:
            self._known[name] = new
            self._changed(new.state not in PASSING)

    def forget(self, name: str) -> None:
        """The container is gone."""
        if self._known.pop(name, None):
            self._changed(True)

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        for name in set(self._known) - set(names):
            self.forget(name)

    def observed(self) -> tuple[ObservedInstance, ...]:
        """All of it, by id."""
        return tuple(self._known[name] for name in sorted(self._known))

    def judged(self) -> frozenset[str]:
        """Those whose health is known, for `difference`."""
        return frozenset(name for name, o in self._known.items() if o.state in JUDGED)

    def gave_up(self, live: Collection[str]) -> frozenset[str]:
        """Those not to be tried again now: ended for good before they were live; once `live`, only for 15 s."""
        now = self._clock()
        return frozenset(
            name
            for name, o in self._known.items()
            if o.state in ENDED and (name not in live or now - o.since < RETRY_S)
        )
