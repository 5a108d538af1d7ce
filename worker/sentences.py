"""Why an instance is not up, in a sentence with the figures. Pure."""

from __future__ import annotations

import datetime as dt

from worker.engine import Inspection
from worker.protocol import DesiredInstance, HealthCheck


def lifetime_s(seen: Inspection) -> float | None:
    """Seconds between start and end; None when either is unknown."""
    try:
        begun, over = (
            dt.datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00") for text in (seen.started_at, seen.finished_at)
        )
    except ValueError:
        return None
    return (over - begun).total_seconds() if over >= begun else None


def ending(wanted: DesiredInstance, seen: Inspection) -> str:
    """How a container ended; the engine's own sentence where the exit code does not say it."""
    if seen.error and seen.status in ("created", "dead"):
        return f"It could not be started: {seen.error}"
    life = lifetime_s(seen)
    after = "" if life is None else f" after {life:.1f} s"
    if seen.sentence:
        return seen.sentence
    if seen.oom_killed:
        return f"Killed{after}: it used all its memory. A plan with more memory helps."
    if seen.exit_code == 0:
        return f"It exited with 0{after}: an app has to keep running and listen on port {wanted.port}."
    return f"It exited with {seen.exit_code}{after}. Its last log lines say why."


def no_answer(port: int, check: HealthCheck, trouble: str) -> str:
    """A deadline that ran out."""
    asked = f"GET {check.path} on port {port}" if check.kind == "http" else f"port {port}"
    hint = (
        "Does the app listen on $PORT and on all addresses (0.0.0.0)?"
        if trouble == "connection refused"
        else "Is its health check right?"
    )
    return f"No healthy answer from {asked} after {check.deadline_s:g} s: {trouble}. {hint}"
