"""What people do with running apps: deploy, roll back, start, stop, restart, scale, cancel, delete.

Each is one transaction that writes what should be; on commit the deployment is advanced and hosts are hinted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from portal import hints
from portal.accounts.access import Verb, require
from portal.accounts.actor import Actor
from portal.audit.actions import record
from portal.errors import Conflict, Invalid, NotFound, OverQuota
from portal.fleet.models import Host
from portal.hosting.models import App, Process
from portal.hosting.mounts import check_writers
from portal.hosting.usage import plan_sums, reserved_by
from portal.images.models import Image
from portal.plans.actions import lock_quota, take
from portal.releases.advance import advance_on_commit, drain, lock_hosts, look, perform, route
from portal.releases.making import make_release, newest_release
from portal.releases.models import Deployment, DeploymentEvent, DeploymentState, Instance, Release
from portal.releases.planning import Effect as Effect
from portal.releases.planning import change_plan as change_plan
from portal.releases.planning import move_to_plan as move_to_plan
from portal.releases.planning import plan_effects as plan_effects
from portal.releases.rollout import ACTIVE, CANCELLABLE, fail


def _require(actor: Actor, verb: Verb, app: App) -> None:
    require(actor, verb, app.team, missing=f"There is no app {app.slug!r}.")


def _lock(app: App) -> App:
    """The app's row, held until the transaction ends: deployments of one app begin one after the other."""
    locked = (
        App.objects.select_for_update(of=("self",), no_key=True)
        .select_related("team", "plan")
        .filter(pk=app.pk)
        .first()
    )
    if locked is None or locked.deleting_at is not None:
        raise Conflict(f"{app.slug} is being deleted.")
    return locked


def _begin(
    actor: Actor, app: App, release: Release, kind: str, *, idempotency_key: str = "", audited: bool = False
) -> Deployment:
    """Cancel what is under way, write the deployment and go on with it on commit."""
    last = Deployment.objects.filter(app=app).aggregate(last=Max("number"))["last"]
    number = (last or 0) + 1
    _cancel_all(app, f"replaced by deployment {number}")
    if app.wanted != "running":
        App.objects.filter(pk=app.pk).update(wanted="running")
    now = timezone.now()
    deployment = Deployment.objects.create(
        app=app,
        number=number,
        release=release,
        kind=kind,
        state_since=now,
        created_by=actor.user,
        idempotency_key=idempotency_key[:100],
    )
    DeploymentEvent.objects.create(deployment=deployment, state=DeploymentState.QUEUED, at=now)
    if not audited:
        record(actor, kind, "app", app.slug, team=app.team.slug, deployment=number, release=release.number)
    hints.deployment_changed(deployment.pk, app.pk, deployment.state)
    advance_on_commit(deployment.pk)
    return deployment


def _cancel_all(app: App, reason: str, *, switching: bool = False) -> None:
    states = ACTIVE if switching else CANCELLABLE
    for pk in list(Deployment.objects.filter(app=app, state__in=states).values_list("pk", flat=True)):
        _cancel_one(pk, states, reason)


def _cancel_one(deployment_id: int, states: Sequence[str], reason: str) -> bool:
    """Cancel it while it is in one of `states`; whoever moves it at the same time makes us look again, never miss it."""
    while True:
        found = Deployment.objects.select_related("app__team", "app__plan", "release").get(pk=deployment_id)
        if found.state not in states:
            return False
        if perform(found, fail(look(found), reason, to=DeploymentState.CANCELLED)):
            return True


@transaction.atomic
def deploy(
    actor: Actor, app: App, image: Image, *, note: str = "", idempotency_key: str = "", command: Sequence[str] = ()
) -> Deployment:
    """Make a release of `image` with the app's present environment and move the app to it (verb deploy).

    `command` runs instead of the image's; an image without one must be given it, once.

    A deployment under way is cancelled ("replaced by deployment N"); one that is switching is waited for. A stopped app starts.
    """
    _require(actor, "deploy", app)
    locked = _lock(app)
    if idempotency_key:
        before = Deployment.objects.filter(app=locked, idempotency_key=idempotency_key).first()
        if before is not None:
            return before
    release = make_release(actor, locked, image, note, command)
    return _begin(actor, locked, release, "deploy", idempotency_key=idempotency_key)


@transaction.atomic
def redeploy(actor: Actor, app: App, *, kind: str = "environment", note: str = "") -> Deployment:
    """A new release of the newest image with the present environment and settings; Conflict when nothing was deployed."""
    _require(actor, "deploy", app)
    locked = _lock(app)
    release = make_release(actor, locked, newest_release(locked).image, note or "new environment")
    return _begin(actor, locked, release, kind)


@transaction.atomic
def rollback(actor: Actor, app: App, number: int | None = None) -> Deployment:
    """Move the app to an older release (None: the one live before this); plan, count and names stay as they are."""
    _require(actor, "deploy", app)
    locked = _lock(app)
    current = newest_release(locked)
    rows = Release.objects.filter(app=locked)
    if number is None:
        proven = rows.filter(deployments__state__in=("live", "superseded"), number__lt=current.number)
        target = proven.order_by("-number").first()
        if target is None:
            raise Conflict(f"{locked.slug} has no release before {current.number} that was live.")
    else:
        found = rows.filter(number=number).first()
        if found is None:
            raise NotFound(f"{locked.slug} has no release {number}.")
        target = found
    return _begin(actor, locked, target, "rollback")


@transaction.atomic
def start(actor: Actor, app: App) -> Deployment | None:
    """Run a stopped app's release again; None when it runs already. Conflict when nothing was deployed."""
    _require(actor, "deploy", app)
    locked = _lock(app)
    release = newest_release(locked)
    if locked.wanted == "running" and _is_up(locked):
        return None
    return _begin(actor, locked, release, "start")


def _is_up(app: App) -> bool:
    busy = Deployment.objects.filter(app=app, state__in=ACTIVE).exists()
    return busy or Instance.objects.filter(app=app, wanted="running").exists()


@transaction.atomic
def stop(actor: Actor, app: App) -> None:
    """Take the app out of the route, drain and stop its instances, cancel what is under way. Repeating does nothing."""
    _require(actor, "deploy", app)
    locked = _lock(app)
    _cancel_all(locked, "the app was stopped", switching=True)
    if locked.wanted == "stopped" and not _is_up(locked):
        return
    App.objects.filter(pk=locked.pk).update(wanted="stopped")
    _empty(locked)
    record(actor, "stop", "app", locked.slug, team=locked.team.slug)


def _empty(app: App) -> None:
    route(app.pk, (), lock_hosts())
    running = Instance.objects.filter(app=app, wanted__in=("running", "stopped")).values_list("pk", flat=True)
    drain(tuple(running), timezone.now())
    for what in ("deployment", "instances"):
        hints.page_changed(app.pk, what)
    for name in Host.objects.values_list("name", flat=True):
        hints.host_changed(name)


@transaction.atomic
def restart(actor: Actor, app: App) -> Deployment:
    """Replace every instance by a new one of the same release, without a gap. A stopped app starts."""
    _require(actor, "deploy", app)
    locked = _lock(app)
    return _begin(actor, locked, newest_release(locked), "restart")


@transaction.atomic
def scale(actor: Actor, app: App, counts: Mapping[str, int]) -> Deployment | None:
    """Set the number of instances per process, e.g. {"web": 3}; OverQuota with figures. None when nothing is to be done now."""
    _require(actor, "write", app)
    lock_quota(app.team)
    locked = _lock(app)
    rows = {row.name: row for row in Process.objects.filter(app=locked)}
    _check_counts(locked, rows, counts)
    if all(rows[name].count == count for name, count in counts.items()):
        return None
    before = {name: row.count for name, row in rows.items()}
    total = sum({**before, **counts}.values())
    take(locked.team, reserved_by(locked.team, without_app=locked.pk), plan_sums(locked.plan, total, apps=1))
    for name, count in counts.items():
        Process.objects.filter(pk=rows[name].pk).update(count=count)
    record(actor, "scale", "app", locked.slug, team=locked.team.slug, before=before, counts=dict(counts))
    if locked.wanted == "stopped" or not _is_up(locked):
        return None
    under_way = Deployment.objects.filter(app=locked, state__in=CANCELLABLE).exclude(kind="scale").last()
    if under_way is not None:  # moving to a release already: begin that again with the new counts
        return _begin(actor, locked, under_way.release, under_way.kind, audited=True)
    return _begin(actor, locked, newest_release(locked), "scale", audited=True)


def _check_counts(app: App, rows: Mapping[str, Process], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if name not in rows:
            raise NotFound(f"{app.slug} has no process {name!r}.", f"Processes: {', '.join(sorted(rows))}.")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise Invalid(f"{name} cannot have {count} instances.", "Give 1 or more; to have none, stop the app.")
    total = sum(counts.get(name, row.count) for name, row in rows.items())
    check_writers(app, total)
    if total > app.plan.instances_max:
        raise OverQuota(
            f"Plan {app.plan.slug} allows {app.plan.instances_max} instances, {total} were asked for.",
            "Choose a larger plan.",
        )


@transaction.atomic
def cancel(actor: Actor, deployment: Deployment) -> Deployment:
    """End a deployment under way: the new instances stop, the old ones serve on. Conflict when it has ended."""
    _require(actor, "deploy", deployment.app)
    _lock(deployment.app)
    who = actor.user.username if actor.user else "the platform"
    cancelled = _cancel_one(deployment.pk, ACTIVE, f"cancelled by {who}")
    found = Deployment.objects.select_related("app__team", "app__plan", "release__image").get(pk=deployment.pk)
    if not cancelled:
        raise Conflict(f"Deployment {found.number} of {found.app.slug} has ended: it is {found.state}.")
    record(actor, "cancel", "app", found.app.slug, team=found.app.team.slug, deployment=found.number)
    return found


@transaction.atomic
def delete_app(actor: Actor, app: App) -> None:
    """Remove the app with all it runs (verb write): the name is free once its last container is gone."""
    _require(actor, "write", app)
    locked = App.objects.select_for_update(of=("self",), no_key=True).select_related("team").get(pk=app.pk)
    if locked.deleting_at is not None:
        return
    _cancel_all(locked, "the app was deleted", switching=True)
    App.objects.filter(pk=locked.pk).update(deleting_at=timezone.now(), wanted="stopped")
    _empty(locked)
    Instance.objects.filter(app=locked).update(wanted="removed")
    record(actor, "delete", "app", locked.slug, team=locked.team.slug)
