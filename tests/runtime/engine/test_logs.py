"""From the log's files to Docker's frames."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runtime.engine.logs import LogQuery, Reader, files, tail_start

BASE = 1_700_000_000_000_000_000


def record(n: int, tag: str, text: str) -> bytes:
    return f"{BASE + n:019d} {tag} {text}\n".encode()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, length = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def read(folder: Path, query: LogQuery) -> list[tuple[int, bytes]]:
    with Reader(folder, query) as reader:
        return frames(b"".join(reader.batches()))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / f"{BASE}.log").write_bytes(record(0, "o", "one") + record(1, "e", "two"))
    (tmp_path / f"{BASE + 2}.log").write_bytes(record(2, "O", "thr") + record(3, "o", "ee"))
    (tmp_path / "current").write_bytes(record(4, "m", "a sentence") + record(5, "o", "four"))
    return tmp_path


def test_all_files_are_read_oldest_first(log: Path) -> None:
    assert read(log, LogQuery()) == [
        (1, b"one\n"),
        (2, b"two\n"),
        (1, b"thr"),
        (1, b"ee\n"),
        (2, b"moorage: a sentence\n"),
        (1, b"four\n"),
    ]


def test_one_stream_alone(log: Path) -> None:
    assert [text for _, text in read(log, LogQuery(stderr=False))] == [b"one\n", b"thr", b"ee\n", b"four\n"]


@pytest.mark.parametrize(
    ("lines", "first"),
    [(1, b"four\n"), (2, b"moorage: a sentence\n"), (3, b"thr"), (4, b"two\n"), (5, b"one\n"), (99, b"one\n")],
)
def test_tail_counts_lines_and_not_their_pieces(log: Path, lines: int, first: bytes) -> None:
    assert read(log, LogQuery(tail=lines))[0][1] == first


def test_tail_of_nothing_is_nothing(log: Path) -> None:
    assert read(log, LogQuery(tail=0)) == []


def test_since_and_until_bound_the_records(log: Path) -> None:
    found = read(log, LogQuery(since_ns=BASE + 1, until_ns=BASE + 3))
    assert [text for _, text in found] == [b"two\n", b"thr", b"ee\n"]


def test_a_time_stamp_stands_once_before_a_line_in_pieces(log: Path) -> None:
    found = [text for _, text in read(log, LogQuery(timestamps=True, stderr=False))]
    assert found[0] == b"2023-11-14T22:13:20.000000000Z one\n"
    assert found[1].endswith(b"Z thr") and found[2] == b"ee\n"


def test_a_record_that_is_half_written_waits_for_its_end(tmp_path: Path) -> None:
    current = tmp_path / "current"
    whole = record(0, "o", "hello")
    current.write_bytes(whole[:10])
    with Reader(tmp_path, LogQuery()) as reader:
        assert b"".join(reader.batches()) == b""
        with current.open("ab") as file:
            file.write(whole[10:])
        assert frames(b"".join(reader.batches())) == [(1, b"hello\n")]


def test_a_follower_goes_on_over_a_closed_file_and_misses_nothing(tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.write_bytes(record(0, "o", "a"))
    with Reader(tmp_path, LogQuery()) as reader:
        found = frames(b"".join(reader.batches()))
        with current.open("ab") as file:
            file.write(record(1, "o", "b"))
        current.rename(tmp_path / f"{BASE}.log")
        (tmp_path / f"{BASE + 2}.log").write_bytes(record(2, "o", "c"))
        current.write_bytes(record(3, "o", "d"))
        found += frames(b"".join(reader.batches()))
    assert [text for _, text in found] == [b"a\n", b"b\n", b"c\n", b"d\n"]


def test_a_follower_that_is_overtaken_by_trimming_goes_on_with_what_is_left(tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.write_bytes(record(0, "o", "a"))
    with Reader(tmp_path, LogQuery()) as reader:
        list(reader.batches())
        current.unlink()
        (tmp_path / f"{BASE + 5}.log").write_bytes(record(5, "o", "x"))
        current.write_bytes(record(6, "o", "y"))
        assert [text for _, text in frames(b"".join(reader.batches()))] == [b"x\n", b"y\n"]


def test_a_follower_may_come_before_the_first_line(tmp_path: Path) -> None:
    with Reader(tmp_path, LogQuery(tail=0)) as reader:
        assert list(reader.batches()) == []
        (tmp_path / "current").write_bytes(record(0, "o", "first"))
        assert frames(b"".join(reader.batches())) == [(1, b"first\n")]


def test_no_folder_is_an_empty_log(tmp_path: Path) -> None:
    assert files(tmp_path / "none") == []
    assert tail_start([], 5, LogQuery()) == (0, 0)
    assert read(tmp_path / "none", LogQuery()) == []
