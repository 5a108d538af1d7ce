"""Whether one more container fits the store: what others may still write, and the reserve, come first."""

from __future__ import annotations

import pytest

from runtime.engine.admission import RESERVE_MOST_BYTES, Disk, check
from runtime.engine.errors import NoRoom

GB = 1 << 30


def test_the_reserve_is_a_share_and_has_an_end() -> None:
    assert Disk(10 * GB, GB).reserve_bytes == 10 * GB // 20
    assert Disk(1000 * GB, GB).reserve_bytes == RESERVE_MOST_BYTES


def test_what_fits_beside_promises_and_reserve_is_admitted_to_the_byte() -> None:
    disk = Disk(20 * GB, 10 * GB)
    check(disk, 5 * GB, 4 * GB)
    with pytest.raises(NoRoom):
        check(disk, 5 * GB, 4 * GB + 1)


def test_the_refusal_has_the_figures_and_the_way_out() -> None:
    with pytest.raises(NoRoom) as refused:
        check(Disk(20 * GB, 10 * GB), 8 * GB, 2 * GB)
    assert refused.value.message == (
        "the store has 10 GB free; 8 GB of that are promised to running containers and 1 GB are kept in reserve: "
        "a disk of 2 GB more does not fit."
    )
    assert refused.value.hint
    assert refused.value.status == 507


def test_below_the_reserve_nothing_starts_not_even_without_a_limit() -> None:
    check(Disk(20 * GB, GB), 0, 0)
    with pytest.raises(NoRoom, match="has 1023 MB of 20 GB free, and 1 GB are kept in reserve"):
        check(Disk(20 * GB, GB - (1 << 20)), 0, 0)
