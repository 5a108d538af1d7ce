"""The record, read as the monitor writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.logs import Follower, LineId

T0 = 1_790_000_000_000_000_000


class Record:
    """Writes a log folder in the documented format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ids: list[LineId] = []
        self.first: int | None = None

    def write(self, ns: int, *texts: str, tag: str = "o") -> None:
        with (self.folder / "current").open("a") as file:
            for text in texts:
                last = self.ids[-1] if self.ids else LineId(0, -1)
                self.ids.append(LineId(ns, last.index + 1 if last.ns == ns else 0))
                file.write(f"{ns} {tag} {text}\n")
                self.first = self.first or ns

    def rotate(self) -> None:
        if self.first is not None and not (self.folder / f"{self.first}.log").exists():
            (self.folder / "current").rename(self.folder / f"{self.first}.log")
            self.first = None


def read_all(follower: Follower, limit: int = 1 << 20) -> list[LineId]:
    found = []
    while lines := follower.read(limit):
        found += [line.id for line in lines]
    return found


def test_an_id_is_made_of_the_time_and_the_place_among_equals() -> None:
    assert str(LineId(1_790_000_000_123_456_789, 2)) == f"1790000000123-{(456_789 << 20) | 2}"
    assert LineId.parse(str(LineId(T0 + 5, 7))) == LineId(T0 + 5, 7)


@given(st.lists(st.tuples(st.integers(T0, T0 + 10**10), st.integers(0, 1 << 19)), min_size=2))
def test_ids_sort_as_lines_do(pairs: list[tuple[int, int]]) -> None:
    lines = sorted(LineId(*p) for p in pairs)
    keys = [tuple(int(part) for part in str(line).split("-")) for line in lines]
    assert keys == sorted(keys)


def test_lines_are_read_with_their_tags_and_texts(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.write(T0, "hello", "wörld")
    record.write(T0 + 1, "oops", tag="e")
    follower = Follower(record.folder)
    follower.after(None)
    assert [(line.tag, line.text) for line in follower.read()] == [("o", "hello"), ("o", "wörld"), ("e", "oops")]
    follower.close()


def test_an_unfinished_record_waits_for_its_end(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.write(T0, "one")
    with (record.folder / "current").open("a") as file:
        file.write(f"{T0 + 1} o tw")
        file.flush()
        follower = Follower(record.folder)
        follower.after(None)
        assert [line.text for line in follower.read()] == ["one"]
        file.write("o\n")
    assert [line.text for line in follower.read()] == ["two"]
    follower.close()


def test_a_log_that_is_closed_and_begun_anew_is_read_on(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.write(T0, "a")
    follower = Follower(record.folder)
    follower.after(None)
    assert len(follower.read()) == 1
    record.write(T0 + 1, "b")
    record.rotate()
    record.write(T0 + 2, "c")
    record.rotate()
    record.write(T0 + 3, "d")
    assert [line.text for line in follower.read()] == ["b", "c", "d"]
    follower.close()


def test_a_file_trimmed_away_under_the_reader_costs_only_its_lines(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.write(T0, "a")
    follower = Follower(record.folder)
    follower.after(None)
    follower.read()
    record.rotate()
    (record.folder / f"{T0}.log").unlink()
    record.write(T0 + 5, "b")
    assert [line.text for line in follower.read()] == ["b"]
    follower.close()


def test_the_tail_has_the_last_lines_with_the_same_ids(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    for n in range(50):
        record.write(T0 + n // 3, f"line {n}")
        if n % 20 == 19:
            record.rotate()
    follower = Follower(record.folder)
    follower.tail(10)
    found = read_all(follower)
    assert found == record.ids[-len(found) :]
    assert 10 <= len(found) <= 12
    follower.tail(1000)
    assert read_all(follower) == record.ids
    follower.close()


def test_behind_counts_the_bytes_not_read_yet(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.write(T0, "x" * 100)
    size = (record.folder / "current").stat().st_size
    follower = Follower(record.folder)
    follower.after(None)
    assert follower.behind() == size
    follower.read()
    assert follower.behind() == 0
    record.rotate()
    record.write(T0 + 1, "x" * 100)
    assert follower.behind() == size
    follower.close()


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=25),
    place=st.floats(0, 1),
    block=st.sampled_from((64, 300, 1 << 20)),
)
def test_from_any_line_on_there_is_no_gap_and_no_double(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[int, int, bool]], place: float, block: int
) -> None:
    record = Record(tmp_path_factory.mktemp("r") / "log")
    ns = T0
    for step, count, rotate in groups:
        ns += step
        record.write(ns, *(f"t{n}" for n in range(count)))
        if rotate:
            record.rotate()
    at = int(place * (len(record.ids) - 1))
    follower = Follower(record.folder)
    follower.after(record.ids[at])
    assert read_all(follower, block) == record.ids[at + 1 :]
    follower.close()
