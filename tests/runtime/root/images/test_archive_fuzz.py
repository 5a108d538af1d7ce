"""A moment of the fuzz target `tests.fuzz.archives`, always with the same seed."""

from __future__ import annotations

import pytest

from tests.fuzz.archives import SEED, archives, layers_in_child

pytestmark = pytest.mark.root


def test_bent_archives_and_layers_are_read_or_refused() -> None:
    for tried, good in (archives(1.5, SEED), layers_in_child(1.5, SEED)):
        assert tried > 20 and 0 < good < tried
