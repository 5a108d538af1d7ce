"""What should be on one host, with everything its worker needs, secrets included: the only place they leave the database."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.db.models import Max

from portal.config import config
from portal.fleet.models import Host
from portal.hosting.environment import unseal
from portal.hosting.models import App, Process
from portal.hosting.mounts import mounts_of
from portal.images.tokens import PULL_TOKEN_S, make_pull_token
from portal.plans.models import Plan, TeamQuota
from portal.releases.models import Deployment, DeploymentState, Instance
from portal.releases.rollout import ACTIVE
from portal.volumes.observed import desired_on, tasks_on
from worker.protocol import (
    Desired,
    DesiredInstance,
    GroupLimits,
    HealthCheck,
    ImageRef,
    Limits,
    PageState,
    Route,
    VolumeMount,
)

_LIMIT_FIELDS = tuple(field.name for field in dataclasses.fields(Limits))
_SETTLED = frozenset({"healthy", "draining"})


def limits_of(plan: Plan) -> Limits:
    """A plan's kernel limits."""
    return Limits(**{name: getattr(plan, name) for name in _LIMIT_FIELDS})


@lru_cache(maxsize=512)
def _environment(sealed: bytes) -> dict[str, str]:
    return unseal(sealed)


def _process_environment(row: Instance, port: int) -> dict[str, str]:
    return _environment(bytes(row.release.environment_encrypted)) | {
        "PORT": str(port),
        "MOORAGE_APP": row.app.slug,
        "MOORAGE_RELEASE": str(row.release.number),
        "MOORAGE_INSTANCE": row.pk,
    }


def _instance(row: Instance, mounts: tuple[VolumeMount, ...]) -> DesiredInstance:
    process: dict[str, Any] = row.release.processes.get(row.process, {})
    port = int(process.get("port") or 8080)
    command = process.get("command")
    image = row.release.image
    return DesiredInstance(
        id=row.pk,
        app=row.app.slug,
        team=row.app.team.slug,
        release=row.release.number,
        process=row.process,
        ordinal=row.ordinal,
        image=ImageRef(
            repository=f"{config().registry}/{image.repository}",
            digest=image.digest,
            pull_token=make_pull_token(image.repository),
        ),
        command=tuple(command) if command else None,
        environment=_process_environment(row, port),
        port=port,
        health=HealthCheck(**process.get("health", {"kind": "tcp"})),
        limits=limits_of(row.app.plan),
        wanted=row.wanted,  # type: ignore[arg-type]  # a CharField holding protocol.Wanted
        restart=row.restart,
        no_new_privs=row.app.no_new_privs,
        restart_generation=row.app.restart_generation,
        volumes=mounts,
    )


def page_of(app: App, last_state: str) -> PageState:
    """What the ingress says for an app without instances in its route; `last_state` is its newest deployment's."""
    if app.deleting_at is not None:
        return "deleted"
    if last_state in ACTIVE:
        return "starting"
    return "failed" if last_state == DeploymentState.FAILED and app.wanted == "running" else "stopped"


def _routes(rows: Iterable[Instance]) -> tuple[Route, ...]:
    routed: dict[int, list[str]] = {}
    for row in rows:
        if row.routed and row.wanted == "running":
            routed.setdefault(row.app_id, []).append(row.pk)
    apps = list(App.objects.only("slug", "wanted", "deleting_at").order_by("slug"))
    last = _last_states([app.pk for app in apps if app.pk not in routed])
    return tuple(
        Route(
            app=app.slug,
            names=(config().app_host(app.slug),),
            instances=tuple(sorted(routed.get(app.pk, ()))),
            page="starting" if app.pk in routed else page_of(app, last.get(app.pk, "")),
        )
        for app in apps
    )


def _last_states(app_ids: list[int]) -> dict[int, str]:
    """State of the newest deployment of each app."""
    newest = Deployment.objects.filter(app__in=app_ids).values("app").annotate(last=Max("pk")).values("last")
    return dict(Deployment.objects.filter(pk__in=newest).values_list("app_id", "state"))


def _groups(rows: Iterable[Instance]) -> tuple[GroupLimits, ...]:
    """Team and app sums for the cgroup tree; an app gets room for its next release beside this one."""
    apps = {row.app_id: row.app for row in rows}
    teams = {app.team_id: app.team.slug for app in apps.values()}
    groups = [
        GroupLimits(path=teams[q.team_id], limits=Limits(cpu_millicores=q.cpu_millicores, memory_bytes=q.memory_bytes))
        for q in TeamQuota.objects.filter(team__in=list(teams)).order_by("team")
    ]
    counts: dict[int, int] = {}
    for app_id, count in Process.objects.filter(app__in=list(apps)).values_list("app_id", "count"):
        counts[app_id] = counts.get(app_id, 0) + count
    for app_id, app in sorted(apps.items()):
        times, plan = 2 * max(counts.get(app_id, 0), 1), app.plan
        sums = Limits(
            cpu_millicores=plan.cpu_millicores * times, memory_bytes=plan.memory_bytes * times, pids=plan.pids * times
        )
        groups.append(GroupLimits(path=f"{app.team.slug}/{app.slug}", limits=sums))
    return tuple(groups)


def generation_of(content: Mapping[str, Any], *, now: float) -> str:
    """Digest of the content without pull tokens, which differ each time; while something is not up, a new one before they end."""
    bare = {**content, "instances": [{**i, "image": {**i["image"], "pull_token": ""}} for i in content["instances"]]}
    if content.get("unsettled"):
        bare["tokens"] = int(now // (PULL_TOKEN_S / 3))
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:32]


def desired_of(host: Host) -> Desired:
    """Everything that should be on `host`, in a constant number of queries."""
    # Read first: an older generation with newer routes is harmless, the other way round would say `live` too early.
    route_generation = Host.objects.values_list("route_generation", flat=True).get(pk=host.pk)
    rows = list(
        Instance.objects.filter(host=host).select_related("app__team", "app__plan", "release__image").order_by("pk")
    )
    mounts = mounts_of({row.app_id for row in rows})
    desired = Desired(
        host=host.name,
        generation="",
        route_generation=route_generation,
        instances=tuple(_instance(row, mounts.get(row.app_id, ())) for row in rows),
        routes=_routes(rows),
        groups=_groups(rows),
        volumes=desired_on(host),
        tasks=tasks_on(host),
    )
    unsettled = any(row.wanted == "running" and row.observed not in _SETTLED for row in rows)
    content = desired.to_json() | {"unsettled": unsettled}
    return dataclasses.replace(desired, generation=generation_of(content, now=time.time()))
