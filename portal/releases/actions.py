"""What people do with running apps: deploy, roll back, start, stop, restart, scale, cancel, delete, change plans.

Each is one transaction that writes what should be; on commit `advance` is called and hosts are hinted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import Plan
from portal.releases.models import Deployment


def deploy(actor: Actor, app: App, image: Image, *, note: str = "", idempotency_key: str = "") -> Deployment:
    """Make a release of `image` with the app's present environment and move the app to it (verb deploy).

    A deployment under way is cancelled ("replaced by deployment N"); one that is switching is waited for.
    """
    raise NotImplementedError


def redeploy(actor: Actor, app: App, *, kind: str = "environment", note: str = "") -> Deployment:
    """A new release of the newest release's image with the present environment and settings; Conflict when nothing was deployed."""
    raise NotImplementedError


def rollback(actor: Actor, app: App, number: int | None = None) -> Deployment:
    """Move the app to an older release (None: the one live before this); plan, count and names stay as they are."""
    raise NotImplementedError


def start(actor: Actor, app: App) -> Deployment | None:
    """Run a stopped app's release again; None when it runs already. Conflict when nothing was deployed."""
    raise NotImplementedError


def stop(actor: Actor, app: App) -> None:
    """Take the app out of the route, drain and stop its instances, cancel what is under way. Repeating does nothing."""
    raise NotImplementedError


def restart(actor: Actor, app: App) -> Deployment:
    """Replace every instance by a new one of the same release, without a gap."""
    raise NotImplementedError


def scale(actor: Actor, app: App, counts: Mapping[str, int]) -> Deployment | None:
    """Set the number of instances per process, e.g. {"web": 3}; OverQuota with figures. None when nothing changes or the app is stopped."""
    raise NotImplementedError


def cancel(actor: Actor, deployment: Deployment) -> Deployment:
    """End a deployment under way: the new instances stop, the old ones serve on. Conflict when it has ended."""
    raise NotImplementedError


def delete_app(actor: Actor, app: App) -> None:
    """Remove the app with all it runs (verb write): the name is free once its last container is gone."""
    raise NotImplementedError


def change_plan(actor: Actor, plan: Plan, fields: Mapping[str, Any]) -> Plan:
    """Change a plan's limits (operators): running containers get them within seconds, no restart."""
    raise NotImplementedError


def move_to_plan(actor: Actor, app: App, plan: Plan) -> App:
    """Give an app another plan (verb write); limits reach its running containers at once. OverQuota with figures."""
    raise NotImplementedError


def plan_effects(plan: Plan, fields: Mapping[str, Any], latest: Callable[[str], Any]) -> list[Any]:
    """What changing a plan would break, before it is saved. `latest(instance_id)` gives its newest MetricSample or None."""
    raise NotImplementedError
