"""Id ranges: no two containers share a host id, whatever comes and goes."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runtime.engine import idranges
from runtime.engine.errors import Conflict
from runtime.engine.idranges import FIRST_SLOT, SPAN, IdRanges

FEW = 5  # so that all are soon lent
BASES = st.integers(0, FEW - 1).map(lambda slot: (FIRST_SLOT + slot) * SPAN)


class Loans(RuleBasedStateMachine):
    """What an engine does with ranges, beside a plain set of what is lent."""

    def __init__(self) -> None:
        super().__init__()
        self._few = patch.object(idranges, "SLOTS", FEW)
        self._few.start()
        self.model: set[int] = set()
        self.promised = 0

    def teardown(self) -> None:
        self._few.stop()

    @initialize(seed=st.integers(0, 2**32 - 1), records=st.sets(BASES))
    def found_on_disk(self, seed: int, records: set[int]) -> None:
        """An engine comes back to records, of containers that are removed one day too."""
        self.ranges = IdRanges(f"{seed:08x}")
        for base in records:
            self.ranges.adopt(base)
        self.model |= records

    @rule()
    def take(self) -> None:
        if self.promised:
            base = self.ranges.take()
            assert base == self.promised
            self.promised = 0
        elif len(self.model) == FEW:
            with pytest.raises(Conflict, match="All 5 id ranges are lent"):
                self.ranges.take()
            return
        else:
            base = self.ranges.take()
        assert base not in self.model and base % SPAN == 0 and FIRST_SLOT * SPAN <= base <= 2**31 - SPAN
        self.model.add(base)

    @rule()
    def prepare(self) -> None:
        if not self.promised and len(self.model) == FEW:
            with pytest.raises(Conflict):
                self.ranges.prepare()
            return
        chosen = self.ranges.prepare()
        assert chosen not in self.model and chosen == (self.promised or chosen)
        self.promised = chosen

    @rule(base=BASES)
    def give_back(self, base: int) -> None:
        if base in self.model:
            self.ranges.give_back(base)
            self.ranges.give_back(base)
            self.model.discard(base)

    @invariant()
    def none_is_lent_twice(self) -> None:
        if hasattr(self, "ranges"):
            assert self.ranges.prepared == self.promised
            assert self.ranges.lent == self.model | ({self.promised} - {0})


Loans.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestLoans = Loans.TestCase


def test_the_last_range_ends_where_signed_numbers_do() -> None:
    assert (FIRST_SLOT + idranges.SLOTS) * SPAN == 2**31


def test_every_range_can_be_lent() -> None:
    ranges = IdRanges("ffffffff")
    assert len({ranges.take() for _ in range(idranges.SLOTS)}) == idranges.SLOTS
    with pytest.raises(Conflict):
        ranges.take()
