"""Every test signs in anew: allauth allows an address 30 attempts a minute, counted in the process's cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _attempts_are_forgotten() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()
