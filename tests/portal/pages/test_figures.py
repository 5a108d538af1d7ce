"""Figures in words."""

from __future__ import annotations

import datetime as dt

import pytest

from portal import figures

NOW = dt.datetime(2026, 3, 14, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (None, "0 B"),
        (1023, "1023 B"),
        (512 << 20, "512 MB"),
        (1536 << 20, "1.5 GB"),
        (240 * 1024**2 + 700_000, "241 MB"),
        (11 << 40, "11 TB"),
    ],
)
def test_sizes_count_by_1024(count: int | None, words: str) -> None:
    assert figures.size(count) == words


@pytest.mark.parametrize(
    ("rate", "words"), [(0, "0 bit/s"), (50e6, "50 Mbit/s"), (1e9, "1 Gbit/s"), (999_999, "1 Mbit/s")]
)
def test_bit_rates_count_by_1000(rate: float, words: str) -> None:
    assert figures.bits(rate) == words


@pytest.mark.parametrize(
    ("millicores", "words"), [(100, "0.1 core"), (1000, "1 core"), (1500, "1.5 cores"), (0, "0 core")]
)
def test_cores_are_one_up_to_one(millicores: int, words: str) -> None:
    assert figures.cores(millicores) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0421, "42 ms"), (0.6, "0.6 s"), (12.3, "12 s"), (59.7, "1 min"), (184, "3 min 4 s"), (7500, "2 h 5 min")],
)
def test_durations_have_the_unit_that_fits(seconds: float, words: str) -> None:
    assert figures.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "now"),
        (240, "4 minutes ago"),
        (60 * 38, "38 minutes ago"),
        (3600, "1 hour ago"),
        (86400, "yesterday"),
        (86400 * 12, "12 days ago"),
        (-86400 * 5, "in 5 days"),
    ],
)
def test_moments_are_told_from_now(seconds: int, words: str) -> None:
    assert figures.ago(NOW - dt.timedelta(seconds=seconds), NOW) == words


def test_a_share_stays_between_nothing_and_all() -> None:
    assert [figures.share(*pair) for pair in ((1, 4), (9, 4), (1, 0))] == [25.0, 100.0, 0.0]
