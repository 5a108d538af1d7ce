"""The pure parts: ids, cursors, times, rates, thinning."""

from __future__ import annotations

import itertools

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.errors import Invalid
from portal.telemetry.lines import Cursor, Line, at_s, merged, parse_id, unpack_batch
from portal.telemetry.points import points, rate, thinned
from portal.telemetry.since import cursor_of, duration_s, window_s
from tests.portal.telemetry.streams import sample

ids = st.tuples(st.integers(0, 10**14), st.integers(0, 2**64 - 1))
names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)


@given(ids, st.dictionaries(names, ids, max_size=20))
def test_a_cursor_survives_being_written_and_read(floor: tuple[int, int], seen: dict[str, tuple[int, int]]) -> None:
    cursor = Cursor(floor, seen)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.lists(st.tuples(names, ids), max_size=60), st.integers(0, 60))
def test_whatever_is_cut_where_every_line_is_taken_exactly_once(
    drawn: list[tuple[str, tuple[int, int]]], cut: int
) -> None:
    lines = merged({"all": {Line(f"{ms}-{seq}", name, "o", "") for name, (ms, seq) in drawn if (ms, seq) > (0, 0)}})
    first = Cursor()
    got = first.take(lines[:cut])
    resumed = Cursor.parse(str(first))
    got += resumed.take(lines)  # sent again from the beginning
    assert got == lines


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1-2-3", "web@", "web@x", f"{'9' * 16}", ",".join(["a@1"] * 201)])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cursor|id of a log line"):
        Cursor.parse(text)


def test_an_id_holds_its_time_to_the_nanosecond() -> None:
    ns = 1_764_000_000_123_456_789
    line_id = f"{ns // 10**6}-{((ns % 10**6) << 20) | 5}"
    assert at_s(line_id) == pytest.approx(ns / 1e9, abs=1e-6)
    assert parse_id(line_id) > parse_id(f"{ns // 10**6}-{(((ns - 1) % 10**6) << 20) | 900}")


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    packed = msgpack.packb([["1-0", "o", "ok"]]).replace(b"\xa2ok", b"\xa2\xff\xfe")
    assert unpack_batch("web-1", packed)[0].text == "\ufffd\ufffd"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("10m", 600), ("1h", 3600), ("7d", 604800), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
    assert window_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "91d", "-1h", "1w", "h", "1e9", "nan", "inf"])
def test_windows_that_cannot_be(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be used"):
        window_s(text)


def test_since_reads_times_with_and_without_zone() -> None:
    assert cursor_of("2026-01-31T12:00:00Z", 0) == cursor_of("2026-01-31T12:00:00", 0)
    assert cursor_of("2026-01-31T13:00:00+01:00", 0) == cursor_of("2026-01-31T12:00:00Z", 0)
    assert cursor_of("10m", 1000).floor == (400_000, 0)
    assert cursor_of("1764000000", 0).floor == (1_764_000_000_000, 0)
    assert cursor_of("1764000000000-7", 0).floor == (1_764_000_000_000, 7)
    assert cursor_of("", 0) == Cursor()


def test_rates_are_per_second_and_network_is_in_bits() -> None:
    before = sample(100.0, cpu_ns=0, net_in_total=0, disk_write_total=100, throttled_ns=0)
    after = sample(102.0, cpu_ns=10**9, net_in_total=1000, disk_write_total=300, throttled_ns=10**9)
    point = rate("web-1", before, after)
    assert point is not None
    figures = point.to_json()
    assert (figures["cpu_millicores"], figures["net_in_bps"], figures["disk_write_bps"]) == (500.0, 4000, 100)
    assert (figures["throttled_pct"], figures["cpu_pct_of_limit"]) == (50.0, None)
    assert rate("web-1", after, after) is None


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=900), st.integers(1, 300))
def test_thinning_loses_no_growth(growth: list[int], most: int) -> None:
    total, samples = 0, []
    for n, more in enumerate(growth):
        total += more
        samples.append(sample(2.0 * n, net_in_total=total))
    kept = thinned(samples, most)
    assert len(kept) <= most + 1
    assert (kept[0], kept[-1]) == (samples[0], samples[-1])
    found = points("web-1", kept)
    spans = [after.at - before.at for before, after in itertools.pairwise(kept)]
    carried = sum(point.net_in_bps / 8 * span for point, span in zip(found, spans, strict=True))
    assert carried == pytest.approx(total - growth[0])
