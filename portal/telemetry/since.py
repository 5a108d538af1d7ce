"""`?since=` and `?window=` as people write them. Pure."""

from __future__ import annotations

import datetime as dt
import re

from portal.errors import Invalid
from portal.telemetry.lines import Cursor

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(s|m|h|d)?")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}
MAX_WINDOW_S = 90 * 86400.0
EPOCH_DIGITS = 11  # of seconds since 1970; ids of lines are milliseconds and have 13


def duration_s(text: str) -> float | None:
    """Seconds of `90`, `90s`, `10m`, `1h`, `7d`; None for anything else."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNIT_S[match[2]] if match else None


def window_s(text: str) -> float:
    """A window of measurements, 1 s to 90 days; raises Invalid."""
    seconds = duration_s(text)
    if seconds is None or not 1 <= seconds <= MAX_WINDOW_S:
        raise Invalid(f"The window {text[:40]!r} cannot be used.", "Give 15m, 1h, 24h or 7d; 90d is the longest.")
    return seconds


def cursor_of(text: str, now_s: float) -> Cursor:
    """Where a log is to begin: the `next` of an earlier answer, a line's id, a duration (`10m`), or a time
    (ISO 8601, or seconds since 1970).

    Raises Invalid.
    """
    text = text.strip()
    if not text:
        return Cursor()
    if text.isdecimal() and len(text) <= EPOCH_DIGITS:
        return _from(float(text))
    seconds = duration_s(text) if text[-1] in "smhd" else None
    if seconds is not None:
        return _from(now_s - seconds)
    try:
        return Cursor.parse(text)
    except ValueError:
        pass
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            f"since={text[:60]!r} cannot be used.", "Give a line's id, 10m, or a time such as 2026-01-31T12:00:00Z."
        ) from None
    return _from((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp())


def _from(at_s: float) -> Cursor:
    return Cursor(floor=(max(1, int(at_s * 1000)), 0))
