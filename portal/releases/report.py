"""Taking in what a host observed, going on with what waited for it, and answering with what should be next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from portal import hints
from portal.fleet.models import Host
from portal.releases.advance import advance
from portal.releases.desired import desired_of
from portal.releases.models import Deployment, DeploymentState, Instance, PastInstance
from portal.releases.rollout import ACTIVE
from portal.releases.settle import settle
from portal.volumes.observed import take_in
from worker.protocol import ObservedInstance, Report

_FIELDS = ("address", "container_id", "exit_code", "oom_killed", "restarts", "reason")
_LOG_LINES_KEPT = 50
_LINE_CHARS = 2000


def apply_report(host: Host, report: Report) -> dict[str, Any]:
    """Write the report, advance deployments, and return `{"generation", "desired"}`; desired is None when the host has it."""
    changed = _write(host, report)
    if report.volumes is not None:
        take_in(host, report.volumes)
    waiting = Deployment.objects.filter(
        Q(state=DeploymentState.SWITCHING) | Q(state__in=ACTIVE, app_id__in=changed)
    ).order_by("pk")
    for deployment_id in waiting.values_list("pk", flat=True):
        advance(deployment_id)
    settle(host)
    desired = desired_of(host)
    if desired.generation == report.generation:
        return {"generation": desired.generation, "desired": None}
    return {"generation": desired.generation, "desired": desired.to_json()}


@transaction.atomic
def _write(host: Host, report: Report) -> set[int]:
    now = timezone.now()
    seen: dict[str, Any] = {"seen_at": now, "route_reported": report.route_generation}
    facts = host.facts if report.facts is None else report.facts.to_json()
    seen["facts"] = {**facts, "engine_answers": report.complete}
    Host.objects.filter(pk=host.pk).update(**seen)
    rows = {row.pk: row for row in Instance.objects.filter(host=host)}
    changed = [rows[o.id] for o in report.instances if o.id in rows and _take(rows[o.id], o, now)]
    if report.complete:
        changed += _gone(rows, {o.id for o in report.instances if o.state != "absent"}, now)
    if changed:
        Instance.objects.bulk_update(changed, ["observed", "observed_at", "detail", *_FIELDS])
    apps = {row.app_id for row in changed}
    for app_id in apps:
        hints.page_changed(app_id, "instances")
    return apps


def _take(row: Instance, observed: ObservedInstance, now: dt.datetime) -> bool:
    """Copy one observation into its row; False when nothing is new."""
    detail = dict(observed.detail)
    if observed.port:
        detail["port"] = observed.port
    if observed.last_log:
        detail["last_log"] = [line[:_LINE_CHARS] for line in observed.last_log[-_LOG_LINES_KEPT:]]
    before = (row.observed, row.detail, *(getattr(row, name) for name in _FIELDS))
    if row.observed != observed.state:
        row.observed_at = now
    row.observed, row.detail = observed.state, detail
    for name in _FIELDS:
        setattr(row, name, getattr(observed, name))
    return before != (row.observed, row.detail, *(getattr(row, name) for name in _FIELDS))


def _gone(rows: dict[str, Instance], present: Iterable[str], now: dt.datetime) -> list[Instance]:
    """Rows whose container is not there: deleted when that is wanted, else noted as absent."""
    absent = [row for name, row in rows.items() if name not in set(present)]
    done = [row.pk for row in absent if row.wanted in {"removed", "draining"}]
    for app_id in {row.app_id for row in absent if row.pk in done}:
        hints.page_changed(app_id, "instances")
    ended = Instance.objects.filter(pk__in=done, wanted__in=("removed", "draining"))
    _remember(ended, now)
    ended.delete()
    lost = [row for row in absent if row.pk not in done and row.observed != "absent"]
    for row in lost:
        row.observed, row.observed_at, row.address = "absent", now, ""
    return lost


def _remember(ended: Iterable[Instance], now: dt.datetime) -> None:
    """Their last words can be looked at for a while."""
    past = [
        PastInstance(
            id=row.pk,
            app_id=row.app_id,
            process=row.process,
            ordinal=row.ordinal,
            created_at=row.created_at,
            gone_at=now,
        )
        for row in ended
    ]
    if past:
        PastInstance.objects.filter(gone_at__lt=now - PastInstance.KEPT).delete()
        PastInstance.objects.bulk_create(past, ignore_conflicts=True)
