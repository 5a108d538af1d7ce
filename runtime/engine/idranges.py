"""Which host ids belong to which container: ranges of 65,536, each lent to one container at a time.

The records are where a loan is written down (`Record.id_base`), so nothing can say otherwise after a crash."""

from __future__ import annotations

from runtime.engine.errors import Conflict

SPAN = 65_536
FIRST_SLOT = 16  # below 1,048,576 lie the host's own users and what useradd gives to people (/etc/subuid)
SLOTS = 32_752  # up to 2**31: tools that read ids as signed numbers stay right


class IdRanges:
    """Loans of one engine. `seed` spreads engines of one machine over the space so that they seldom meet."""

    def __init__(self, seed: str) -> None:
        self._next = int(seed, 16) % SLOTS
        self._taken: set[int] = set()
        self._next_up = 0

    def adopt(self, base: int) -> None:
        """Count `base` as lent: it was read from a record."""
        self._taken.add(base)

    def take(self) -> int:
        """The first host id of a range that no container of this engine has; raises Conflict when all are lent."""
        if self._next_up:
            base, self._next_up = self._next_up, 0
            return base
        for _ in range(SLOTS):
            base = (FIRST_SLOT + self._next) * SPAN
            self._next = (self._next + 1) % SLOTS
            if base not in self._taken:
                self._taken.add(base)
                return base
        raise Conflict(f"All {SLOTS} id ranges are lent.", "Remove containers that are no longer needed.")

    def prepare(self) -> int:
        """Choose the range that `take` gives next, for something to be prepared with it. One that was chosen before stays so."""
        self._next_up = self.take()
        return self._next_up

    @property
    def prepared(self) -> int:
        """What `take` gives next, 0 when nothing was prepared."""
        return self._next_up

    def give_back(self, base: int) -> None:
        """End a loan; giving back twice is harmless."""
        self._taken.discard(base)

    @property
    def lent(self) -> frozenset[int]:
        """All bases that are lent."""
        return frozenset(self._taken)
