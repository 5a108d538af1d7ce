"""How figures are said: sizes, rates, cores, times. Pure; the same words in pages, notices and effects lists."""

from __future__ import annotations

from datetime import datetime, timedelta

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_BITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")


def short(value: float) -> str:
    """At most three digits that matter: 0.25, 3.4, 11.2, 240."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) < 1 else 1
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, step: int, units: tuple[str, ...]) -> tuple[str, str]:
    place = 0
    while abs(value) >= step * 0.9995 and place < len(units) - 1:
        value /= step
        place += 1
    return (short(value) if place else str(round(value))), units[place]


def size_parts(count: float | None) -> tuple[str, str]:
    """Figure and unit of a size in bytes, by powers of 1024: ("512", "MB")."""
    return _scaled(float(count or 0), 1024, _BYTES)


def size(count: float | None) -> str:
    """A size in bytes as people read it: 512 MB."""
    return " ".join(size_parts(count))


def bits(rate_bps: float | None) -> str:
    """A rate in bits per second, by powers of 1000: 50 Mbit/s."""
    return " ".join(_scaled(float(rate_bps or 0), 1000, _BITS))


def cores(millicores: float | None) -> str:
    """CPU: 0.5 core, 1 core, 1.5 cores."""
    value = float(millicores or 0) / 1000
    return f"{short(value)} {'core' if value <= 1 else 'cores'}"


def duration(seconds: float) -> str:
    """A span: 41 ms, 0.6 s, 12 s, 3 min 4 s, 2 h 5 min."""
    if seconds < 0.1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


_STEPS = (("minute", 60), ("hour", 3600), ("day", 86400), ("month", 30 * 86400), ("year", 365 * 86400))


def ago(then: datetime, now: datetime) -> str:
    """A moment relative to now: now, 38 minutes ago, yesterday, 3 weeks ago, in 5 days."""
    away = (now - then) / timedelta(seconds=1)
    if abs(away) < 45:
        return "now" if away > -5 else "in a moment"
    span = abs(away)
    unit, length = next(((u, n) for u, n in reversed(_STEPS) if span >= n * 0.95), _STEPS[0])
    count = max(1, round(span / length))
    if away > 0 and unit == "day" and count == 1:
        return "yesterday"
    words = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{words} ago" if away > 0 else f"in {words}"


def share(used: float, allowed: float) -> float:
    """Percent of a limit in use, 0 to 100; 0 where there is no limit."""
    return min(100.0, max(0.0, 100 * used / allowed)) if allowed else 0.0
