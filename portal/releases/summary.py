"""What state an app, a deployment or an instance is in, in words: pure functions of rows already loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from portal import figures
from portal.hosting.models import App
from portal.releases.models import Deployment, DeploymentEvent, DeploymentState, Instance

STEPS = ("queued", "pulling", "starting", "checking", "switching", "live")
ENDED = frozenset({"live", "superseded", "failed", "cancelled"})
KINDS = {
    "deploy": "Deploying", "rollback": "Rolling back to", "environment": "New environment as", "restart": "Restarting",
    "scale": "Scaling", "volumes": "New volumes as", "start": "Starting",
}  # fmt: skip
_INSTANCE = {
    "absent": ("busy", "Waiting"), "pulling": ("busy", "Pulling"), "creating": ("busy", "Creating"),
    "starting": ("busy", "Starting"), "checking": ("busy", "Checking"), "healthy": ("live", "Healthy"),
    "unhealthy": ("failed", "Unhealthy"), "exited": ("failed", "Exited"), "failed": ("failed", "Failed"),
    "draining": ("draining", "Draining"), "stopped": ("stopped", "Stopped"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Status:
    """A dot's class, its word, and the faint line that says more."""

    css: str
    word: str
    second: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a deployment; `since` is set while it is under way."""

    name: str
    css: str
    text: str = ""
    since: datetime | None = None


def gist(app: App, last: Deployment | None, instances: Sequence[Instance]) -> dict[str, str]:
    """What a page shows, by the hints that change it: a page that was made before a change compares, and asks again."""
    return {
        "deployment": f"{app.wanted} {last.number} {last.state}" if last else app.wanted,
        "instances": " ".join(f"{i.pk}:{i.wanted}:{i.observed}:{i.routed}:{i.restarts}" for i in instances),
    }


def serving(instances: Sequence[Instance]) -> list[Instance]:
    """Those that get traffic now."""
    return [row for row in instances if row.routed and row.observed in {"healthy", "checking", "unhealthy"}]


def serving_release(instances: Sequence[Instance]) -> int | None:
    """Number of the release that serves; instances come with their release loaded."""
    numbers = [row.release.number for row in serving(instances)]
    return max(numbers) if numbers else None


def app_status(app: App, last: Deployment | None, instances: Sequence[Instance]) -> Status:
    """The one word for an app. `last` is its newest deployment; instances come with their release."""
    if app.deleting_at is not None:
        return Status("busy", "Deleting", "its containers are being removed")
    if last is None:
        return Status("none", "Nothing deployed", "waits for its first image")
    if last.state not in ENDED:
        return Status("busy", "Deploying", _progress(last, instances))
    if app.wanted == "stopped":
        return Status("stopped", "Stopped", "not serving")
    up = serving(instances)
    if last.state == DeploymentState.FAILED:
        number = serving_release(instances)
        return Status("failed", "Failed", f"release {number} keeps serving" if number else _first_sentence(last.reason))
    if not up:
        return _down(instances)
    healthy = sum(row.observed == "healthy" for row in up)
    wanted = sum(row.wanted == "running" for row in instances)
    return Status("live", "Live", "" if healthy == wanted else f"{healthy} of {wanted} instances healthy")


def _progress(last: Deployment, instances: Sequence[Instance]) -> str:
    mine = [row for row in instances if row.deployment_id == last.pk]
    if last.state == DeploymentState.CHECKING and mine:
        healthy = sum(row.observed == "healthy" for row in mine)
        return f"checking, {healthy} of {len(mine)} healthy"
    return str(last.state)


def _down(instances: Sequence[Instance]) -> Status:
    bad = next((row for row in instances if row.reason), None)
    if any(row.observed in {"starting", "checking", "creating"} for row in instances):
        return Status("busy", "Coming up", bad.reason if bad else "")
    return Status("failed", "Down", _first_sentence(bad.reason) if bad else "no instance is healthy")


def _first_sentence(text: str) -> str:
    return text.split("\n")[0][:140]


def instance_status(row: Instance) -> Status:
    """An instance's word; its reason, exit code or restarts as second line."""
    css, word = _INSTANCE.get(row.observed, ("none", row.observed))
    if row.observed in {"exited", "failed", "unhealthy"} and row.reason:
        return Status(css, word, row.reason)
    if row.observed == "exited" and row.exit_code is not None:
        return Status(css, word, f"with code {row.exit_code}")
    return Status(css, word, f"restarted {row.restarts} ×" if row.restarts else "")


def deployment_status(row: Deployment) -> Status:
    """A deployment's word in lists."""
    words = {
        DeploymentState.LIVE: ("live", "Live"), DeploymentState.SUPERSEDED: ("stopped", "Superseded"),
        DeploymentState.FAILED: ("failed", "Failed"), DeploymentState.CANCELLED: ("stopped", "Cancelled"),
    }  # fmt: skip
    css, word = words.get(DeploymentState(row.state), ("busy", str(row.state).capitalize()))
    return Status(css, word)


def steps(row: Deployment, events: Sequence[DeploymentEvent]) -> list[Step]:
    """The way of a deployment: each step with what was said of it and how long it took."""
    at = {event.state: event for event in events}
    order = [event for event in sorted(events, key=lambda e: e.at) if event.state in (*STEPS, *ENDED)]
    after = {event.state: order[n + 1].at for n, event in enumerate(order[:-1])}
    reached = [name for name in STEPS if name in at]
    broke = row.state in {DeploymentState.FAILED, DeploymentState.CANCELLED}
    return [
        _step(name, row, at.get(name), after.get(name), broken=broke and name == (reached or ["queued"])[-1])
        for name in STEPS
    ]


def _step(name: str, row: Deployment, event: DeploymentEvent | None, end: datetime | None, *, broken: bool) -> Step:
    title = name.capitalize()
    if event is None:
        return Step(title, "")
    if row.state == name and name != "live":
        return Step(title, "now", event.text, event.at)
    took = figures.duration((end - event.at).total_seconds()) if end and name != "live" else ""
    if name == "live" and row.finished_at is not None:
        took = f"after {figures.duration((row.finished_at - row.created_at).total_seconds())}"
    text = ", ".join(part for part in (event.text, took) if part)
    return Step(title, "bad" if broken else "done", text)


def names(instances: Sequence[Instance]) -> dict[str, str]:
    """Instance id → what people call it: web.1."""
    return {row.id: f"{row.process}.{row.ordinal}" for row in instances}
