"""A container's log, from the engine's files (docs/interfaces.md, "The log of a container") to Docker's frames.

Records are `<19-digit ns> <tag> <text>\\n`; frames are `<stream> 0 0 0 <length, 4 bytes big endian>` and the bytes.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtime.engine.units import rfc3339

CURRENT = "current"
BLOCK = 256 << 10
STAMP = 20  # 19 digits and a space; the tag is the byte after
TEXT = 22
STDOUT, STDERR = 1, 2
_STREAM = {ord("o"): STDOUT, ord("O"): STDOUT, ord("e"): STDERR, ord("E"): STDERR, ord("m"): STDERR}
_FRAME = struct.Struct(">B3xI")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What of a log is wanted. Times in ns since 1970 (0: no bound); `tail` in lines (None: all)."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    raw: bool = False  # a TTY's log has no frames

    def wants(self, tag: int) -> bool:
        """Whether records with this tag are wanted."""
        stream = _STREAM.get(tag)
        return (stream == STDOUT and self.stdout) or (stream == STDERR and self.stderr)


def frame(stream: int, data: bytes) -> bytes:
    """One of Docker's frames on a multiplexed stream."""
    return _FRAME.pack(stream, len(data)) + data


class Encoder:
    """Records in, frames out; keeps the unfinished last record until its end arrives."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._rest = b""
        self._open: set[int] = set()  # streams whose last piece has no line end yet
        self.past_end = False

    def feed(self, data: bytes) -> bytes:
        """Frames of all whole records in `data`."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        out = []
        q = self._query
        for line in lines:
            if len(line) < TEXT or not q.wants(line[STAMP]):
                continue
            if q.since_ns or q.until_ns:
                ns = int(line[: STAMP - 1])
                if q.until_ns and ns > q.until_ns:
                    self.past_end = True
                    break
                if ns < q.since_ns:
                    continue
            out.append(self._encode(line))
        return b"".join(out)

    def _encode(self, line: bytes) -> bytes:
        tag, text = line[STAMP], line[TEXT:]
        stream = _STREAM[tag]
        begins = stream not in self._open
        if tag in b"OE":
            self._open.add(stream)
        else:
            self._open.discard(stream)
            text += b"\n"
        if tag == ord("m"):
            text = b"moorage: " + text
        if self._query.timestamps and begins:
            text = rfc3339(int(line[: STAMP - 1])).encode() + b" " + text
        return text if self._query.raw else frame(stream, text)


def files(folder: Path) -> list[Path]:
    """The files of a log, oldest first: closed ones are named by their first record, `current` is the last."""
    try:
        closed = sorted(p for p in folder.iterdir() if p.suffix == ".log" and p.stem.isdigit())
    except FileNotFoundError:
        return []
    current = folder / CURRENT
    return [*closed, current] if current.exists() else closed


def tail_start(paths: list[Path], lines: int, query: LogQuery) -> tuple[int, int]:
    """Where the last `lines` wanted lines begin: (index into paths, byte offset). Pieces of a line count with its end."""
    if not paths or lines <= 0:
        return len(paths), 0
    for index in range(len(paths) - 1, -1, -1):
        offset, lines = _tail_of(paths[index], lines, query)
        if not lines:
            return index, offset
    return 0, 0


def _tail_of(path: Path, lines: int, query: LogQuery) -> tuple[int, int]:
    """Offset of the `lines`-th wanted line from the end, and how many are still missing when the file has fewer."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return 0, lines
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = end = data.rfind(b"\n") + 1
            missing = lines
            while end > 0:
                begin = data.rfind(b"\n", 0, end - 1) + 1
                if end - begin > TEXT and query.wants(data[begin + STAMP]) and data[begin + STAMP] not in b"OE":
                    if not missing:
                        return start, 0
                    missing -= 1
                start = end = begin
            return 0, missing


class Reader:
    """Reads a log forwards over its files, also while the monitor writes and closes them. Close it after use."""

    def __init__(self, folder: Path, query: LogQuery) -> None:
        self._folder = folder
        self._encoder = Encoder(query)
        self._file: BinaryIO | None = None
        self._done: Path | None = None
        paths = files(folder)
        if query.tail is None:
            self._pending, offset = paths, 0
        else:
            index, offset = tail_start(paths, query.tail, query)
            self._pending = paths[index:]
            if index == len(paths) and paths:
                self._pending, offset = paths[-1:], paths[-1].stat().st_size
        self._open_next(offset)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def past_end(self) -> bool:
        """Whether a record later than `until_ns` was seen: nothing more will come."""
        return self._encoder.past_end

    def close(self) -> None:
        """Let go of the open file."""
        if self._file:
            self._file.close()
            self._file = None

    def batches(self) -> Iterator[bytes]:
        """Frames up to the end of what is written now; call again when the folder changed."""
        while not self.past_end:
            if self._file is None and not self._open_next():
                return
            data = self._file.read(BLOCK) if self._file else b""
            if data:
                found = self._encoder.feed(data)
                if found:
                    yield found
                continue
            if not self._advance():
                return

    def _open_next(self, offset: int = 0) -> bool:
        if not self._pending:
            self._pending = files(self._folder)
        while self._pending:
            path = self._pending.pop(0)
            try:
                self._file = path.open("rb", buffering=0)
            except FileNotFoundError:
                continue  # closed and renamed, or trimmed, since it was listed
            self._file.seek(offset)
            return True
        return False

    def _advance(self) -> bool:
        """At the end of a file: go on with the one after it, if there is one. A file is known by its inode: `current` gets a name."""
        if self._file is None:
            return False
        mine = os.fstat(self._file.fileno()).st_ino
        paths = files(self._folder)
        inodes = [_inode(p) for p in paths]
        # a file that is not there was trimmed away under us: go on with the oldest that is left
        later = paths[inodes.index(mine) + 1 :] if mine in inodes else paths
        if not later:
            return False
        rest = self._file.read(BLOCK)  # written between our last read and its being closed
        if rest:
            self._file.seek(-len(rest), 1)
            return True
        self._file.close()
        self._file = None
        self._pending = later
        return True


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
