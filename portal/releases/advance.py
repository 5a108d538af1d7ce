"""Performing a deployment's steps: each transition is a compare-and-set, and its effects are in the same transaction."""

from __future__ import annotations

import datetime as dt
import secrets

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from portal import hints
from portal.errors import PortalError
from portal.fleet.models import Host
from portal.hosting.models import Process
from portal.hosting.mounts import exclusive_volumes
from portal.releases.models import Deployment, DeploymentEvent, DeploymentState, Instance
from portal.releases.placing import is_fresh, place
from portal.releases.rollout import ACTIVE, Member, Situation, Step, fail, next_step

MAX_STEPS = 12
DRAIN_S = 120  # the worker ends a drain by itself when the last session is over; this is for a worker that does not
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def advance(deployment_id: int) -> str:
    """Carry a deployment as far as it can go now and return its state. Safe to call twice at once: one of the two acts."""
    state = ""
    for _ in range(MAX_STEPS):
        deployment = _load(deployment_id)
        if deployment is None:
            return state
        state = deployment.state
        if state not in ACTIVE:
            return state
        situation = look(deployment)
        step = next_step(situation)
        if step is None:
            return state
        try:
            perform(deployment, step)
        except PortalError as error:  # no host can take it
            perform(deployment, fail(situation, f"{error.message} {error.hint}".strip()))
    return state


def _load(deployment_id: int) -> Deployment | None:
    rows = Deployment.objects.select_related("app__plan", "app__team", "release")
    return rows.filter(pk=deployment_id).first()


def look(deployment: Deployment) -> Situation:
    """Everything `rollout` needs to know, in four queries."""
    app = deployment.app
    hosts = list(Host.objects.order_by("pk"))
    names = {host.pk: host.name for host in hosts}
    members = tuple(
        Member(
            id=row.pk,
            process=row.process,
            ordinal=row.ordinal,
            mine=row.deployment_id == deployment.pk,
            wanted=row.wanted,
            observed=row.observed,
            routed=row.routed,
            reason=row.reason,
            host=names.get(row.host_id, ""),
        )
        for row in Instance.objects.filter(app=app).order_by("process", "ordinal", "pk")
    )
    older = Deployment.objects.filter(app=app, number__lt=deployment.number, state=DeploymentState.SWITCHING)
    health = [process.get("health", {}) for process in deployment.release.processes.values()]
    return Situation(
        state=deployment.state,
        counts=dict(Process.objects.filter(app=app).values_list("name", "count")),
        members=members,
        adds=deployment.kind == "scale",
        waits_for=older.values_list("number", flat=True).first() or 0,
        routes_in=routes_in(hosts, deployment.route_generation),
        in_state_s=(timezone.now() - deployment.state_since).total_seconds(),
        check_deadline_s=max((float(check.get("deadline_s", 60)) for check in health), default=60.0),
        exclusive=exclusive_volumes(app),
        silent_hosts=tuple(sorted({m.host for m in members if m.mine} & {h.name for h in hosts if not is_fresh(h)})),
    )


def routes_in(hosts: list[Host], generation: int) -> bool:
    """Whether every host that reports has its ingress at this generation. One that is silent gets it before it serves again."""
    fresh = [host for host in hosts if is_fresh(host)]
    return bool(fresh) and generation > 0 and all(host.route_reported >= generation for host in fresh)


@transaction.atomic
def perform(deployment: Deployment, step: Step) -> bool:
    """Do one step, unless somebody else moved the deployment first (False)."""
    now = timezone.now()
    rows = Deployment.objects.filter(pk=deployment.pk, state=deployment.state)
    if rows.update(state=step.to, state_since=now) != 1:
        return False
    # Hosts before instances, as a report locks them, or the two could wait for each other.
    hosts = lock_hosts()
    if step.routed is not None:
        generation = route(deployment.app_id, step.routed, hosts)
        Deployment.objects.filter(pk=deployment.pk).update(route_generation=generation)
    if step.start:
        _start(deployment, step, now)
    if step.keep:
        Instance.objects.filter(pk__in=step.keep).update(restart=True)
    if step.drain:
        drain(step.drain, now)
    if step.halt:
        Instance.objects.filter(pk__in=step.halt).update(wanted="stopped", routed=False, restart=False)
    if step.resume:
        Instance.objects.filter(pk__in=step.resume).update(wanted="running", restart=True)
    if step.stop:
        Instance.objects.filter(pk__in=step.stop).update(wanted="removed", routed=False)
    _tell(deployment, step, now)
    return True


def _start(deployment: Deployment, step: Step, now: dt.datetime) -> None:
    placed = place(deployment.app, step.start)
    Instance.objects.bulk_create(
        Instance(
            id=_instance_id(deployment, process, ordinal),
            app=deployment.app,
            release=deployment.release,
            deployment=deployment,
            host=host,
            process=process,
            ordinal=ordinal,
            observed_at=now,
        )
        for (process, ordinal), host in placed.items()
    )


def _instance_id(deployment: Deployment, process: str, ordinal: int) -> str:
    # The random end keeps names apart when an app is deleted and made again: logs and containers go by this name.
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"{deployment.app.slug[:36]}-{deployment.number}-{process[:8]}-{ordinal}-{salt}"


def drain(ids: tuple[str, ...], now: dt.datetime) -> None:
    """Take instances out of service gently."""
    until = now + dt.timedelta(seconds=DRAIN_S)
    Instance.objects.filter(pk__in=ids).update(wanted="draining", routed=False, restart=False, drain_until=until)


def lock_hosts() -> list[Host]:
    """Every host's row, held until the transaction ends; inserting instances that refer to them stays possible."""
    return list(Host.objects.select_for_update(no_key=True).order_by("pk"))


def route(app_id: int, ids: tuple[str, ...], hosts: list[Host]) -> int:
    """Put exactly these instances into the app's route and return the generation that every ingress has to report."""
    Instance.objects.filter(app_id=app_id, routed=True).exclude(pk__in=ids).update(routed=False)
    Instance.objects.filter(app_id=app_id, pk__in=ids).update(routed=True)
    generation = max((host.route_generation for host in hosts), default=0) + 1
    Host.objects.filter(pk__in=[host.pk for host in hosts]).update(route_generation=generation)
    return generation


def _tell(deployment: Deployment, step: Step, now: dt.datetime) -> None:
    if step.to not in ACTIVE:
        _end(deployment, step, now)
    DeploymentEvent.objects.create(deployment=deployment, state=step.to, at=now, text=step.text[:255])
    hints.deployment_changed(deployment.pk, deployment.app_id, step.to)
    if step.start or step.drain or step.stop or step.halt or step.resume or step.routed is not None or step.keep:
        for name in Host.objects.values_list("name", flat=True):
            hints.host_changed(name)


def _end(deployment: Deployment, step: Step, now: dt.datetime) -> None:
    reason = "" if step.to == DeploymentState.LIVE else step.text
    lines: list[str] = []
    if step.to == DeploymentState.FAILED:
        rows = Instance.objects.filter(deployment=deployment, pk__in=step.stop)
        lines = next((row.detail["last_log"] for row in rows if row.detail.get("last_log")), [])
    Deployment.objects.filter(pk=deployment.pk).update(finished_at=now, reason=reason, last_log=lines)
    if step.to == DeploymentState.LIVE:
        before = Deployment.objects.filter(app=deployment.app, state=DeploymentState.LIVE).exclude(pk=deployment.pk)
        before.update(state=DeploymentState.SUPERSEDED)
    following = Deployment.objects.filter(app=deployment.app, state=DeploymentState.QUEUED)
    waiting = following.aggregate(first=Max("pk"))["first"]
    if waiting is not None:
        following_id: int = waiting
        advance_on_commit(following_id)


def advance_on_commit(deployment_id: int) -> None:
    """Go on with a deployment once the transaction is in."""

    def go_on() -> None:
        advance(deployment_id)

    transaction.on_commit(go_on)
