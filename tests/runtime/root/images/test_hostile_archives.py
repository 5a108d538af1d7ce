"""Every archive of the corpus is refused with its sentence and leaves nothing behind."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from runtime.images.format import ImageFault
from runtime.images.store import ImageStore
from tests.corpus.hostile import CASES, Case

pytestmark = pytest.mark.root


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_refused_and_leaves_nothing(store: ImageStore, case: Case, unchanged: Callable[[], None]) -> None:
    with pytest.raises(ImageFault) as caught:
        store.load(io.BytesIO(case.build()))
    assert case.sentence in str(caught.value)
    assert store.list() == []
    unchanged()
