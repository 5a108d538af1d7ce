"""Reads a container's log as the monitor writes it (docs/interfaces.md, "The log of a container"), forwards and from any line.

A line's id is made from its record, so a line read twice has the same id twice.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CURRENT = "current"
BLOCK = 256 << 10
NS_DIGITS, TAG_AT, TEXT_AT = 19, 20, 22
TEXT_CHARACTERS = 16_384


@dataclass(frozen=True, slots=True, order=True)
class LineId:
    """Where a line stands: its time stamp in ns since 1970, and which of the records with that stamp it is, from 0."""

    ns: int
    index: int

    def __str__(self) -> str:
        """As a Redis stream id, `<ms>-<seq>`: sorts as lines do."""
        return f"{self.ns // 10**6}-{((self.ns % 10**6) << 20) | self.index}"

    @classmethod
    def parse(cls, text: str) -> LineId:
        """The inverse of `str`; raises ValueError."""
        ms, _, seq = text.partition("-")
        return cls(int(ms) * 10**6 + (int(seq) >> 20), int(seq) & 0xFFFFF)


@dataclass(frozen=True, slots=True)
class Line:
    """One record. `tag` as in the file: o, e, O, E or m."""

    id: LineId
    tag: str
    text: str


BEGIN = LineId(0, 0)


class Follower:
    """Reads one log folder forwards. `after(id)` or `tail(n)` says from where; `read` gives what is there now. Close it after use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._rest = b""
        self._seen = LineId(0, -1)  # the last record parsed
        self._skip_to = LineId(0, -1)  # records up to this one are known already

    def close(self) -> None:
        """Let go of the open file."""
        if self._file:
            self._file.close()
            self._file = None
        self._rest = b""

    def after(self, last: LineId | None) -> None:
        """Go on behind `last`, which may be of another life of this reader; None: from the oldest record there is."""
        self.close()
        self._seen = LineId(0, -1)
        self._skip_to = last or self._seen
        paths = files(self._folder)
        if last is None or not paths:
            return
        # The records of one stamp may begin at the end of the file before.
        older = [p for p in paths if (first := _first_ns(p)) is not None and first < last.ns]
        path = older[-1] if older else paths[0]
        self._open(path, _offset_of(path, last.ns))

    def tail(self, lines: int, since_ns: int | None = None) -> None:
        """Go on with about the last `lines` records (all of the first one's stamp, so that ids are right), and with all those
        from `since_ns` on."""
        missing, start = lines, None
        for path in reversed(files(self._folder)):
            start, missing = _nth_from_end(path, missing)
            if not missing:
                break
        self.after(None)
        if start is not None and not missing:
            self.after(LineId(start if since_ns is None else min(start, since_ns), 0))
            self._skip_to = LineId(0, -1)

    def read(self, limit: int = BLOCK) -> list[Line]:
        """Whole records that are there now, about `limit` bytes of them at most; empty when there is nothing new."""
        found: list[Line] = []
        size = 0
        while size < limit or not found:  # what is skipped does not count
            if self._file is None and not self._open_first():
                break
            data = self._file.read(min(BLOCK, limit)) if self._file else b""
            if data:
                size += len(data)
                self._parse(data, found)
            elif not self._advance():
                break
        return found

    def behind(self) -> int:
        """Bytes on disk not read yet."""
        paths = files(self._folder)
        if self._file is None:
            return sum(_size(p) for p in paths)
        mine = os.fstat(self._file.fileno())
        inodes = [_inode(p) for p in paths]
        later = paths[inodes.index(mine.st_ino) + 1 :] if mine.st_ino in inodes else paths
        return mine.st_size - self._file.tell() + sum(_size(p) for p in later)

    def _parse(self, data: bytes, found: list[Line]) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if len(line) < TEXT_AT:
                continue
            ns = int(line[:NS_DIGITS])
            self._seen = LineId(ns, self._seen.index + 1 if ns == self._seen.ns else 0)
            if self._seen > self._skip_to:
                text = line[TEXT_AT:].decode(errors="replace")[:TEXT_CHARACTERS]
                found.append(Line(self._seen, chr(line[TAG_AT]), text))

    def _open(self, path: Path, offset: int = 0) -> bool:
        self.close()
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return False  # closed and renamed, or trimmed, since it was listed
        self._file.seek(offset)
        return True

    def _open_first(self) -> bool:
        return any(self._open(path) for path in files(self._folder))

    def _advance(self) -> bool:
        """At the end of a file: on to the next, if there is one. A file is known by its inode, since `current` gets a name."""
        if self._file is None:
            return False
        mine = os.fstat(self._file.fileno()).st_ino
        paths = files(self._folder)
        inodes = [_inode(p) for p in paths]
        trimmed = [p for p in paths if (_first_ns(p) or 0) >= self._seen.ns]  # ours was trimmed away under us
        later = paths[inodes.index(mine) + 1 :] if mine in inodes else trimmed
        if not later:
            return False
        if os.fstat(self._file.fileno()).st_size > self._file.tell():
            return True  # written between our last read and its being closed
        return self._open(later[0])


def files(folder: Path) -> list[Path]:
    """The files of a log, oldest first: closed ones are named by their first record, `current` is the last."""
    try:
        closed = sorted(p for p in folder.iterdir() if p.suffix == ".log" and p.stem.isdigit())
    except FileNotFoundError:
        return []
    current = folder / CURRENT
    return [*closed, current] if current.exists() else closed


def _first_ns(path: Path) -> int | None:
    if path.stem.isdigit():
        return int(path.stem)
    try:
        with path.open("rb") as file:
            head = file.read(NS_DIGITS)
    except FileNotFoundError:
        return None
    return int(head) if len(head) == NS_DIGITS else None


def _offset_of(path: Path, ns: int) -> int:
    """Offset of the first record with a stamp of at least `ns`, by bisection: stamps never go backwards."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            low, high = 0, data.rfind(b"\n") + 1
            while low < high:
                middle = data.rfind(b"\n", low, (low + high) // 2) + 1 or low
                if int(data[middle : middle + NS_DIGITS]) < ns:
                    low = data.find(b"\n", middle) + 1
                else:
                    high = middle
            return low
    except (FileNotFoundError, ValueError):  # trimmed away, or empty
        return 0


def _nth_from_end(path: Path, count: int) -> tuple[int | None, int]:
    """Stamp of the `count`-th record from the end, and how many are missing when the file has fewer."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = data.rfind(b"\n") + 1
            while end and count:
                end = data.rfind(b"\n", 0, end - 1) + 1
                count -= 1
            return int(data[end : end + NS_DIGITS]), count
    except (FileNotFoundError, ValueError):
        return None, count


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
