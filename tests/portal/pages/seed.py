"""Rows as a busy platform has them, for looking at pages without engine and worker: `python -m tests.portal.pages.seed`.

Not used by the product. Tests of the pages use it for lists long enough to show a query per row.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup(set_prefix=False)

import msgpack  # type: ignore[import-untyped]
from django.utils import timezone

from portal.accounts.actions import add_member, create_team, create_token, create_user
from portal.accounts.actor import SYSTEM
from portal.accounts.models import Membership, Team, User
from portal.config import config
from portal.fleet.models import Host
from portal.hosting.actions import create_app, set_env
from portal.hosting.environment import read_environment, seal
from portal.hosting.models import App, Mount, Process
from portal.images.models import Blob, Image
from portal.plans.models import Plan
from portal.releases.models import Deployment, DeploymentEvent, Instance, Release
from portal.telemetry.models import LimitEvent, MinuteMetric
from portal.volumes.models import Backup, Volume
from worker.protocol import MetricSample, log_stream, metric_stream

APPS = (
    ("atlas-web", "medium", 3, "busy"), ("tide-api", "small", 2, "live"), ("ledger", "large", 1, "live"),
    ("newsletter", "small", 1, "failed"), ("docs", "nano", 1, "live"), ("playground", "nano", 1, "stopped"),
    ("harbour-map", "nano", 1, "new"),
)  # fmt: skip
FACTS = {
    "cpu_millicores": 8000, "memory_bytes": 24 << 30, "disk_bytes": 180 << 30, "disk_free_bytes": 121 << 30, "engine_version": "0.1.0",
    "kernel": "6.1.0-30-amd64", "cgroup_version": 2, "storage_driver": "overlay2", "network_pool": "10.80.0.0/14",
}  # fmt: skip
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/app/tide/wsgi.py", line 3, in <module>',
    "ModuleNotFoundError: No module named 'tide.settings'",
]
LINES = (
    ("o", "GET /api/tiles/11/1103/674 200 12 ms"), ("o", "GET /api/tiles/11/1104/674 200 9 ms"),
    ("o", "cache miss for region north-sea, loading 41 MB"), ("o", "GET /api/search?q=harbour 200 88 ms"),
    ("e", "slow query 412 ms: select * from berths where harbour_id = 4711 order by arrival"),
    ("o", "listening on 0.0.0.0:8080"),
)  # fmt: skip


def image_of(team: Team, slug: str, number: int, user: User | None = None) -> Image:
    """An image as an upload leaves it."""
    digest = f"sha256:{number:02x}{abs(hash((team.slug, slug))) % 16**14:014x}".ljust(71, "7")
    image, _ = Image.objects.get_or_create(
        team=team,
        repository=f"{team.slug}/{slug}",
        digest=digest[:71],
        defaults={
            "media_type": "application/vnd.oci.image.manifest.v1+json", "size_bytes": (74 << 20) + number * 5_100_000,
            "reference": f"{slug}:1.{number}", "created_by": user,
            "config": {
                "command": ["gunicorn", "tide.wsgi", "--workers", "2"], "port": 8080, "user": "app", "os": "linux", "architecture": "amd64",
                "env_names": ["PATH"], "stop_signal": "", "volumes": [], "healthcheck": None,
                "layers": [{"digest": f"sha256:{n}{'8f2c41bb' * 8}"[:71], "size_bytes": s} for n, s in enumerate((78_400_000, 50_500_000, 5_340_000))],
            },
        },
    )  # fmt: skip
    Blob.objects.get_or_create(digest=image.digest, defaults={"size_bytes": image.size_bytes})
    return image


def deployment_of(
    app: App, number: int, state: str, user: User | None, *, kind: str = "deploy", reason: str = ""
) -> Deployment:
    """A deployment with its release and the events that led to `state`."""
    at = (
        timezone.now() - dt.timedelta(minutes=40 * (6 - number))
        if state != "checking"
        else timezone.now() - dt.timedelta(seconds=2)
    )
    release, _ = Release.objects.get_or_create(
        app=app,
        number=number,
        defaults={
            "image": image_of(app.team, app.slug, number, user), "environment_encrypted": seal(read_environment(app) | {"RELEASE_NOTE": str(number)}),
            "processes": {"web": {"command": None, "port": 8080, "health": {"kind": "http", "path": "/health"}}}, "created_by": user,
        },
    )  # fmt: skip
    row = Deployment.objects.create(
        app=app, number=number, release=release, state=state, state_since=at, kind=kind, reason=reason, created_by=user,
        finished_at=None if state == "checking" else at + dt.timedelta(seconds=0.74),
        last_log=TRACEBACK if state == "failed" else [],
    )  # fmt: skip
    Deployment.objects.filter(pk=row.pk).update(created_at=at)
    way = ["queued", "pulling", "starting", "checking", "switching", "live"]
    way = [*way[:3], "failed"] if state == "failed" else way[:4] if state == "checking" else way
    texts = {
        "pulling": "5.1 MB new",
        "starting": "2 instances",
        "checking": "1 of 2 healthy",
        "switching": "",
        "live": "",
    }
    for n, name in enumerate(way):
        DeploymentEvent.objects.create(
            deployment=row,
            state=name,
            at=at + dt.timedelta(seconds=(0, 0.002, 0.31, 0.352, 0.69, 0.74)[n]),
            text=texts.get(name, ""),
        )
    return row


def instance_of(
    app: App, deployment: Deployment, ordinal: int, host: Host, observed: str = "healthy", **more: Any
) -> Instance:
    """A container that is there."""
    name = f"{app.slug}-{deployment.number}-web-{ordinal}-k3vq"
    return Instance.objects.create(
        id=name, app=app, release=deployment.release, deployment=deployment, host=host, process="web", ordinal=ordinal,
        observed=observed, observed_at=timezone.now(), address=f"10.80.4.{10 + ordinal}", **more,
    )  # fmt: skip


def minutes_of(app: App, instance: str, seed: int, minutes: int = 60) -> None:
    """An hour of minute rows."""
    now = timezone.now().replace(second=0, microsecond=0)
    plan = app.plan
    MinuteMetric.objects.bulk_create(
        MinuteMetric(
            app=app, instance=instance, minute=now - dt.timedelta(minutes=n),
            cpu_millicores=plan.cpu_millicores * (0.3 + 0.2 * math.sin((n + seed) / 5) + 0.05 * math.sin(n * seed)),
            memory_bytes=int(plan.memory_bytes * 0.6), memory_max_bytes=int(plan.memory_bytes * 0.7), net_in_bps=2e6, net_out_bps=9e6,
            disk_read_bps=0, disk_write_bps=2e5, disk_used_bytes=int(plan.disk_bytes * 0.2), pids=14,
        )
        for n in range(minutes)
    )  # fmt: skip


def busy(app: App, host: Host, user: User, count: int) -> None:
    """An app that runs release 3 and may be on its way to 4."""
    deployment_of(app, 1, "superseded", user)
    deployment_of(app, 2, "superseded", user, kind="environment")
    live = deployment_of(app, 3, "live", user)
    for ordinal in range(count):
        row = instance_of(app, live, ordinal, host, routed=True, restart=True, restarts=1 if ordinal == 1 else 0)
        minutes_of(app, row.id, ordinal + len(app.slug))


def seed(owner: User, *, apps: tuple[tuple[str, str, int, str], ...] = APPS, team: Team | None = None) -> Team:
    """A team with apps in every state."""
    host, _ = Host.objects.get_or_create(name=config().host_name, defaults={"token_digest": "seed"})
    Host.objects.filter(pk=host.pk).update(seen_at=timezone.now(), facts=FACTS)
    team = team or create_team(SYSTEM, slug="harbour-lab", name="Harbour Lab", owner=owner)
    for slug, plan, count, state in apps:
        app = create_app(SYSTEM, team, slug=slug, plan=Plan.objects.get(slug=plan))
        Process.objects.filter(app=app).update(count=count)
        if state == "new":
            continue
        set_env(
            SYSTEM, app, {"DATABASE_URL": "postgres://tide@db/tide", "SECRET_KEY": "not so secret", "LOG_LEVEL": "info"}
        )
        busy(app, host, owner, 0 if state == "stopped" else count)
        if state == "busy":
            last = deployment_of(app, 4, "checking", owner)
            for ordinal in range(2):
                instance_of(app, last, ordinal, host, "healthy" if ordinal == 0 else "checking")
            LimitEvent.objects.create(
                app=app, instance=f"{slug}-3-web-1-k3vq", limit="memory", level="instance", used=1 << 30, allowed=1 << 30, process="gunicorn",
                sentence="web.1 was killed at 14:02:11: it used 1 GB of 1 GB. Plan Large gives 2 GB.", at=timezone.now() - dt.timedelta(minutes=3),
            )  # fmt: skip
        if state == "failed":
            deployment_of(
                app, 4, "failed", owner, reason="The process ended with code 1 after 0.2 s, before it was healthy."
            )
        if state == "stopped":
            App.objects.filter(pk=app.pk).update(wanted="stopped")
    volumes(team, host)
    return team


def volumes(team: Team, host: Host) -> None:
    """One that is in use, one that is shared and nearly full, one that nobody has yet."""
    if Volume.objects.filter(team=team).exists():
        return
    make = Volume.objects.create
    data = make(team=team, name="data", size_bytes=4 << 30, used_bytes=1 << 30, host=host)
    uploads = make(team=team, name="uploads", size_bytes=8 << 30, used_bytes=7 << 30, shared=True, host=host)
    make(team=team, name="archive", size_bytes=1 << 30)
    backups = (
        (1, "done", 900 << 20, 310 << 20, ""),
        (2, "done", 1 << 30, 4 << 20, ""),
        (3, "failed", 0, 0, "A copy takes 1 GB, the host has 0.4 GB left."),
    )
    for number, state, size, stored, reason in backups:
        Backup.objects.create(
            team=team, volume=data, volume_name="data", number=number, state=state, size_bytes=size, stored_bytes=stored,
            reason=reason, scheduled=number < 3, digest="sha256:0",
        )  # fmt: skip
    for app in App.objects.filter(team=team, slug="ledger"):
        Mount.objects.create(app=app, volume=data, path="/var/lib/ledger")
    for app in App.objects.filter(team=team, slug="tide-api"):
        Mount.objects.create(app=app, volume=uploads, path="/srv/uploads", subpath="public")


def feed(seconds: float) -> None:
    """Write log lines and samples of every running instance into Redis for a while, with ten minutes before."""
    from portal.telemetry.redis import client

    rows = list(Instance.objects.filter(wanted="running").select_related("app__plan"))
    begun = time.time() - 600
    at = begun
    end = time.time() + seconds
    tick = 0
    while at < end:
        if at > time.time():
            time.sleep(2)  # a sample every two seconds is what the agent sends
        for seed_, row in enumerate(rows):
            _sample(client(), row, at, begun, seed_)
            if (tick + seed_) % 3 == 0 and at > time.time() - 40:
                _line(client(), row, at, LINES[(tick + seed_) % len(LINES)])
        at += 2
        tick += 1


def _sample(redis: Any, row: Instance, at: float, begun: float, seed_: int) -> None:
    plan, t = row.app.plan, at - begun
    seconds = 0.42 * t + 5 * math.sin(t / 31 + seed_) + 0.4 / (1 + seed_ % 3) * math.sin(t / 5 * (1 + seed_ % 3)) + 20
    sample = MetricSample(
        at=at, cpu_ns=int(seconds * plan.cpu_millicores * 1e6), throttled_ns=0,
        memory_bytes=int(plan.memory_bytes * (0.62 + 0.1 * math.sin(t / 90 + seed_))), memory_limit_bytes=plan.memory_bytes,
        net_in_total=int(t * 260_000 + 900_000 * math.sin(t / 20)) + 10_000_000, net_out_total=int(t * 1_200_000 + 4e6 * math.sin(t / 30)) + 10_000_000,
        disk_read_total=0, disk_write_total=int(t * 40_000), disk_used_bytes=int(plan.disk_bytes * 0.21 + t * 40_000),
        pids=14 + seed_ % 3, cpu_limit_millicores=plan.cpu_millicores,
    )  # fmt: skip
    redis.xadd(metric_stream(row.id), {"s": sample.pack()}, maxlen=1800)


def _line(redis: Any, row: Instance, at: float, line: tuple[str, str]) -> None:
    key = f"{int(at * 1000)}-{int(at * 1e9) % 10**6 << 20}"
    redis.xadd(log_stream(row.id), {"l": msgpack.packb([[key, *line]])}, id=key)


def main() -> None:
    """Fill an empty platform that `manage.py bootstrap` made, then keep its figures alive for ten minutes."""
    admin = User.objects.get(username="admin")
    if not Team.objects.filter(slug="harbour-lab").exists():
        team = seed(admin)
        for name, role in (("mia", "maintainer"), ("dan", "developer"), ("vera", "viewer")):
            add_member(
                SYSTEM,
                team,
                create_user(SYSTEM, username=name, email=f"{name}@example.org", password=f"{name}-harbour-1"),
                role,
            )
        create_token(
            SYSTEM,
            Membership.objects.get(user=admin, team=team),
            name="ci of tide-api",
            scopes=["deploy"],
            app_slug="tide-api",
        )
        create_team(SYSTEM, slug="nordwind", name="Nordwind", owner=User.objects.get(username="mia"))
    feed(600)


if __name__ == "__main__":
    main()
