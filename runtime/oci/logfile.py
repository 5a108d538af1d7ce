"""The log of a container: `log/current` and closed files, in the format of docs/interfaces.md, written at pipe speed.

All lines of one read share one stamp, so that a whole read is one `bytes.replace` and one write(2).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

CURRENT = "current"
PIECE_BYTES = 16 << 10
_STAMP_DIGITS = 19
_TAIL_BYTES = 128 << 10


class LogFile:
    """The open log of one container. `file_bytes` closes a file, `total_bytes` (0: none) removes the oldest closed ones."""

    def __init__(self, folder: Path | str, *, file_bytes: int, total_bytes: int) -> None:
        self.folder = str(folder)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)  # noqa: PTH102  (pathlib costs each monitor memory)
        self.last_ns = 0
        self.lost_bytes = 0
        self._open()
        self.set_limits(file_bytes=file_bytes, total_bytes=total_bytes)

    def set_limits(self, *, file_bytes: int, total_bytes: int) -> None:
        """Change the limits; they hold from the next write on."""
        self.total_bytes = total_bytes
        self.file_bytes = min(file_bytes, max(64 << 10, total_bytes // 4)) if total_bytes else file_bytes

    def _open(self) -> None:
        self._fd = os.open(f"{self.folder}/{CURRENT}", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size
        self.first_ns = 0
        if self.size:
            self._resume()

    def _resume(self) -> None:
        """Go on after what an earlier run wrote; a torn last line is closed."""
        head = os.pread(self._fd, _STAMP_DIGITS, 0)
        tail = os.pread(self._fd, _TAIL_BYTES, max(0, self.size - _TAIL_BYTES))
        if not tail.endswith(b"\n"):
            self.size += os.write(self._fd, b"\n")
        last = tail.rstrip(b"\n").rpartition(b"\n")[2][:_STAMP_DIGITS]
        self.first_ns = int(head) if head.isdigit() else 0
        self.last_ns = max(self.last_ns, int(last) if last.isdigit() else 0)

    def write(self, tag: bytes, text: bytes) -> None:
        """Write whole lines (ending in a line end) or, with tag O or E, a piece without one. Never raises for a full disk."""
        if self.size >= self.file_bytes:
            self.rotate()
        now = max(time.time_ns(), self.last_ns + 1)
        prefix = b"%019d %s " % (now, tag)
        body = text[:-1] if text.endswith(b"\n") else text
        record = prefix + body.replace(b"\n", b"\n" + prefix) + b"\n"
        try:
            written = os.write(self._fd, record)
        except OSError:
            self.lost_bytes += len(text)
            return
        if written < len(record):  # the disk filled up in the middle
            self.lost_bytes += len(record) - written
            os.ftruncate(self._fd, self.size)
            return
        self.last_ns = now
        self.first_ns = self.first_ns or now
        self.size += written

    def note(self, sentence: str) -> None:
        """A sentence of the platform."""
        self.write(b"m", sentence.replace("\n", " ").encode() + b"\n")

    def rotate(self) -> None:
        """Close the current file under the stamp of its first record and begin a new one."""
        os.close(self._fd)
        os.rename(f"{self.folder}/{CURRENT}", f"{self.folder}/{self.first_ns:019d}.log")  # noqa: PTH104
        self._open()
        if self.total_bytes:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        closed = sorted(Path(self.folder).glob("*.log"))
        sizes = [path.stat().st_size for path in closed]
        while closed and sum(sizes) + self.file_bytes > self.total_bytes:
            closed.pop(0).unlink(missing_ok=True)
            sizes.pop(0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Lines:
    """One stream's way into the log: whole lines at once, an unfinished one when it grows long or waits too long."""

    def __init__(self, log: LogFile, tag: bytes) -> None:
        self._log = log
        self._tag = tag
        self.tail = b""
        self.fed_at = 0.0

    def feed(self, chunk: bytes) -> None:
        """Take what was read."""
        self.fed_at = time.monotonic()
        cut = chunk.rfind(b"\n") + 1
        if cut:
            self._log.write(self._tag, self.tail + chunk[:cut] if self.tail else chunk[:cut])
            self.tail = chunk[cut:]
        else:
            self.tail += chunk
        if len(self.tail) >= PIECE_BYTES:
            self.flush()

    def flush(self, *, end: bool = False) -> None:
        """Write the unfinished line as a piece, or as a line when the stream has ended."""
        if not self.tail:
            return
        tail, self.tail = self.tail, b""
        self._log.write(self._tag if end else self._tag.upper(), tail)


class TokenBucket:
    """Bytes per second with a second's burst; the time is given by the caller (time.monotonic)."""

    def __init__(self, rate: int) -> None:
        self.set_rate(rate)
        self._at = time.monotonic()

    def set_rate(self, rate: int) -> None:
        """Change the rate; 0 is no limit."""
        self.rate = rate
        self._tokens = float(rate)

    def allowance(self, now: float) -> int:
        """How many bytes may be taken now."""
        self._tokens = min(float(self.rate), self._tokens + (now - self._at) * self.rate)
        self._at = now
        return int(self._tokens)

    def take(self, count: int) -> None:
        """Take them."""
        self._tokens -= count

    def wait_s(self, count: int) -> float:
        """Seconds until that many may be taken."""
        return max(0.0, (min(count, self.rate) - self._tokens) / self.rate) if self.rate else 0.0
