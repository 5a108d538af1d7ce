"""Sizes, times and durations as Docker's clients write them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from runtime.engine.errors import Invalid

_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,3}))?\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SCALE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?")
ZERO_TIME = "0001-01-01T00:00:00Z"


def parse_size(text: str, where: str) -> int:
    """Bytes of `10m`, `1.5G`, `65536`; raises Invalid naming `where`."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Invalid(f"{where} {text[:32]!r} is not a size like 512m or 2g.")
    whole, fraction, unit = match.groups()
    scale = _SCALE[unit.lower()]
    return int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)


def parse_time_ns(text: str) -> int:
    """Nanoseconds since 1970 of `1700000000`, `1700000000.000000001` or an RFC 3339 time; raises Invalid."""
    text = text.strip()
    seconds, _, fraction = text.partition(".")
    if seconds.isdigit() and (not fraction or fraction.isdigit()) and len(seconds) < 12:
        return int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])
    match = _GO_TIME.fullmatch(text)
    if not match:
        raise Invalid(f"{text[:40]!r} is neither seconds since 1970 nor a time like 2026-01-02T15:04:05Z.")
    base, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(base + (zone or "Z").replace("Z", "+00:00"))
    except ValueError as error:
        raise Invalid(f"{text[:40]!r} is not a time: {error}.") from error
    return int(moment.timestamp()) * 10**9 + int(((fraction or "") + "0" * 9)[:9])


def rfc3339(ns: int) -> str:
    """`2026-01-02T15:04:05.123456789Z`; Docker's zero time for 0."""
    if not ns:
        return ZERO_TIME
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def ago(ns: int) -> str:
    """How long since `ns`, in Docker's words: `Less than a second`, `5 minutes`, `2 hours`."""
    s = max(0, time.time_ns() - ns) // 10**9
    if s < 1:
        return "Less than a second"
    if s < 60:
        return f"{s} second{'s' if s > 1 else ''}"
    return _longer_ago(s)


def _longer_ago(s: int) -> str:
    minutes = s // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (s + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"
