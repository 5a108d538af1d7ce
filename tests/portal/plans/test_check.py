"""Quota arithmetic and its sentences."""

from __future__ import annotations

import pytest

from portal.plans.check import Sums, figure, fits, sentences, size


def test_what_fits_gives_no_shortfall() -> None:
    quota = Sums(apps=2, instances=4, cpu_millicores=1000, memory_bytes=1 << 30, disk_bytes=1 << 30)
    assert fits(quota, Sums(apps=1), Sums(apps=1, instances=4, cpu_millicores=1000)) == []


def test_every_dimension_over_is_named_with_its_figures() -> None:
    quota = Sums(memory_bytes=16 << 30, cpu_millicores=8000)
    used = Sums(memory_bytes=15 << 30, cpu_millicores=7500)
    short = fits(quota, used, Sums(memory_bytes=2 << 30, cpu_millicores=1000))
    assert (
        sentences(short)
        == "cpu: 7.5 cores of 8 cores used, 1 cores more wanted; memory: 15 GB of 16 GB used, 2 GB more wanted."
    )


def test_a_dimension_of_which_nothing_is_wanted_never_refuses() -> None:
    assert fits(Sums(apps=1), Sums(apps=5), Sums(instances=0)) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MB"), (512 << 20, "512 MB"), (3 << 29, "1.5 GB"), (5 << 40, "5 TB")],
)
def test_sizes_read_as_people_write_them(count: int, text: str) -> None:
    assert size(count) == text


def test_figures_carry_their_units() -> None:
    assert [figure("apps", 3), figure("cpu_millicores", 250)] == ["3", "0.25 cores"]
