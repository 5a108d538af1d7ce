"""An app's past measurements: streams for the last hour, minute rows beyond it."""

from __future__ import annotations

from portal.hosting.models import App
from portal.telemetry.points import Point

MAX_POINTS = 300


def history(app: App, window_s: float, *, max_points: int = MAX_POINTS) -> dict[str, list[Point]]:
    """Instance id → points, oldest first, at most `max_points` each. Rates are averages over each step."""
    raise NotImplementedError
