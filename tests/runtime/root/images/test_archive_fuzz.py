"""The first rounds of the fuzz target `tests.fuzz.archives`, always the same ones."""

from __future__ import annotations

import pytest

from tests.fuzz.archives import SEED, archives, layers_in_child

pytestmark = pytest.mark.root


def test_bent_archives_and_layers_are_read_or_refused() -> None:
    for tried, good in (archives(300, SEED, 500), layers_in_child(300, SEED, 100)):
        assert tried in {500, 100} and 0 < good < tried
