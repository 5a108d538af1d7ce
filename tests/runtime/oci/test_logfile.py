"""The format and the limits of a container's log."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.oci.logfile import Lines, LogFile, TokenBucket


def _records(folder: Path) -> list[tuple[int, str, bytes]]:
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.log")))
    data += (folder / "current").read_bytes()
    return [(int(line[:19]), line[20:21].decode(), line[22:]) for line in data.split(b"\n")[:-1]]


def test_all_lines_of_one_read_share_a_stamp_and_stamps_grow(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", file_bytes=1 << 20, total_bytes=0)
    lines = Lines(log, b"o")
    lines.feed(b"one\ntwo\n")
    lines.feed(b"\nfour\n")
    records = _records(tmp_path / "log")
    assert [(tag, text) for _, tag, text in records] == [("o", b"one"), ("o", b"two"), ("o", b""), ("o", b"four")]
    stamps = [stamp for stamp, _, _ in records]
    assert stamps[0] == stamps[1] < stamps[2] == stamps[3]


@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\r", b"\n")), max_size=12))
def test_pieces_joined_give_back_what_was_written(tmp_path_factory: object, chunks: list[bytes]) -> None:
    folder = Path(tmp_path_factory.mktemp("log"))  # type: ignore[attr-defined]
    log = LogFile(folder / "log", file_bytes=200, total_bytes=0)
    lines = Lines(log, b"e")
    for index, chunk in enumerate(chunks):
        if chunk:
            lines.feed(chunk)
        if index % 3 == 2:
            lines.flush()
    lines.flush(end=True)
    said = b"".join(text + (b"\n" if tag == "e" else b"") for _, tag, text in _records(folder / "log"))
    written = b"".join(chunks)
    assert said in (written, written + b"\n")


def test_a_long_line_becomes_pieces(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", file_bytes=1 << 20, total_bytes=0)
    lines = Lines(log, b"o")
    lines.feed(b"x" * 20_000)
    lines.feed(b"y\n")
    assert [(tag, len(text)) for _, tag, text in _records(tmp_path / "log")] == [("O", 20_000), ("o", 1)]


def test_files_are_closed_under_their_first_stamp_and_the_oldest_go(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", file_bytes=100_000, total_bytes=400_000)
    for _ in range(30):
        log.write(b"o", b"z" * 49_000 + b"\n")
    closed = sorted((tmp_path / "log").glob("*.log"))
    assert closed
    assert all(int(path.stem) == int(path.read_bytes()[:19]) for path in closed)
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) <= 450_000


def test_a_log_goes_on_after_a_torn_line_with_later_stamps(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    future = 9_000_000_000_000_000_000
    (folder / "current").write_bytes(b"%019d o torn" % future)
    LogFile(folder, file_bytes=1 << 20, total_bytes=0).note("again\nhere")
    assert _records(folder) == [(future, "o", b"torn"), (future + 1, "m", b"again here")]


def test_a_full_disk_loses_output_and_counts_it(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", file_bytes=1 << 20, total_bytes=0)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._fd)
    log.write(b"o", b"lost\n")
    assert log.lost_bytes == 5
    os.close(full)


def test_a_bucket_holds_the_rate_after_a_second_of_burst() -> None:
    bucket = TokenBucket(1000)
    start = bucket._at
    assert bucket.allowance(start) == 1000
    bucket.take(1000)
    assert bucket.allowance(start + 0.5) == 500
    assert bucket.wait_s(600) == 0.1
    assert bucket.allowance(start + 60) == 1000
