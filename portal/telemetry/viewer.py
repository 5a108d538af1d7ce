"""A viewer's buffer: bounded, so that a slow page costs its own lines and nobody's memory."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Sequence

from portal.telemetry.lines import Cursor, Line, LineId

BATCH_LINES = 500
BUFFER_LINES = 5000
BUFFER_BYTES = 2_000_000


class Batch:
    """Lines that go out as one message `[[id, instance, tag, text], …]`, encoded once for all viewers."""

    __slots__ = ("_text", "first", "last", "lines", "size_bytes")

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.first: dict[str, LineId] = {}
        self.last: dict[str, LineId] = {}
        for line in lines:
            order = line.order
            self.first.setdefault(line.instance, order)
            self.last[line.instance] = order
        self.size_bytes = sum(len(line.text) for line in lines) + 60 * len(lines)
        self._text = ""

    @property
    def text(self) -> str:
        """The message."""
        if not self._text:
            self._text = json.dumps(self.lines, ensure_ascii=False, separators=(",", ":"))
        return self._text

    def after(self, cursor: Cursor) -> Batch | None:
        """The part that is new to a cursor, which moves on: itself if all of it is, None if nothing is."""
        if all(order > cursor.of(instance) for instance, order in self.first.items()):
            cursor.seen.update(self.last)
            return self
        fresh = cursor.take(self.lines)
        return Batch(fresh) if fresh else None


def batches(lines: Sequence[Line]) -> Iterator[Batch]:
    """Lines in messages of at most BATCH_LINES."""
    for start in range(0, len(lines), BATCH_LINES):
        yield Batch(lines[start : start + BATCH_LINES])


def skipped_note(count: int, last: Line) -> Line:
    """The line that stands for those a slow viewer was not sent."""
    word = "line" if count == 1 else "lines"
    text = f"{count:,} {word} skipped here: this view was too slow for them. The record has them all."
    return Line(last.id, "", "m", text)


class Viewer:
    """One reader of an app's log. `push` never waits; `next` waits for something to send.

    A replay sends what the streams hold while pushed batches wait; the cursor then drops what came both ways, so
    there is neither gap nor double. Should more come during the replay than the buffer holds, it is replayed again.
    """

    def __init__(self, cursor: Cursor, *, instance: str = "") -> None:
        self.cursor = cursor
        self.instance = instance
        self._ready = asyncio.Event()
        self._buffer: deque[Batch] = deque()
        self._lines = self._bytes = 0
        self._replaying = self._overflowed = False
        self._skipped = 0
        self._last_skipped: Line | None = None

    def begin_replay(self) -> None:
        """From here on pushed batches are kept and the cursor is the replay's."""
        self._replaying, self._overflowed = True, False

    def end_replay(self) -> bool:
        """Whether the replay met the live lines; False when it must be run again."""
        self._replaying = False
        return not self._overflowed

    def push(self, batch: Batch) -> None:
        """Buffer a batch; when the buffer is full the oldest go and are counted."""
        if self.instance:
            mine = [line for line in batch.lines if line.instance == self.instance]
            if not mine:
                return
            batch = batch if len(mine) == len(batch.lines) else Batch(mine)
        self._buffer.append(batch)
        self._lines += len(batch.lines)
        self._bytes += batch.size_bytes
        while len(self._buffer) > 1 and (self._lines > BUFFER_LINES or self._bytes > BUFFER_BYTES):
            self._skip(self._pop())
        self._ready.set()

    def _pop(self) -> Batch:
        batch = self._buffer.popleft()
        self._lines -= len(batch.lines)
        self._bytes -= batch.size_bytes
        return batch

    def _skip(self, batch: Batch) -> None:
        if self._replaying:
            self._overflowed = True
            return
        fresh = batch.after(self.cursor)
        if fresh is not None:
            self._skipped += len(fresh.lines)
            self._last_skipped = fresh.lines[-1]

    async def next(self) -> Batch:
        """The next batch that is new to the cursor, or a note about skipped lines."""
        while True:
            if self._skipped and self._last_skipped is not None:
                note = Batch([skipped_note(self._skipped, self._last_skipped)])
                self._skipped = 0
                return note
            if not self._buffer:
                self._ready.clear()
                await self._ready.wait()
            elif (batch := self._pop().after(self.cursor)) is not None:
                return batch
