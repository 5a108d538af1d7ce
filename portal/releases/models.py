"""What runs (Release), how an app gets there (Deployment), and the containers that follow (Instance)."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import models

from portal.fleet.models import Host
from portal.hosting.models import App
from portal.images.models import Image


class Release(models.Model):
    """Image + environment + commands and checks: immutable, numbered per app."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="releases")
    number = models.PositiveIntegerField()
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="releases")
    environment_encrypted = models.BinaryField()
    processes = models.JSONField(default=dict)  # {"web": {"command": null | [...], "port": 8080, "health": {...}}}
    note = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["app", "number"], name="one_release_of_a_number")]


class DeploymentState(models.TextChoices):
    """Where a deployment is; `live`, `superseded`, `failed` and `cancelled` are ends."""

    QUEUED = "queued"
    PULLING = "pulling"
    STARTING = "starting"
    CHECKING = "checking"
    SWITCHING = "switching"
    LIVE = "live"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Deployment(models.Model):
    """Moves an app to a release. Its state changes only by compare-and-set in `releases.advance`."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="deployments")
    number = models.PositiveIntegerField()
    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="deployments")
    state = models.CharField(max_length=12, choices=DeploymentState.choices, default=DeploymentState.QUEUED)
    state_since = models.DateTimeField()
    reason = models.TextField(blank=True)
    last_log = models.JSONField(default=list)
    kind = models.CharField(max_length=12, default="deploy")  # deploy, rollback, environment, restart, scale, start
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    idempotency_key = models.CharField(max_length=100, blank=True)
    route_generation = models.PositiveBigIntegerField(default=0)  # every ingress must report this one before `live`

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["app", "number"], name="one_deployment_of_a_number")]
        indexes = [models.Index(fields=["state"])]


class DeploymentEvent(models.Model):
    """One transition, as shown in the steps of a deployment."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="events")
    state = models.CharField(max_length=12)
    at = models.DateTimeField()
    text = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["at", "id"]


class Instance(models.Model):
    """A container that should be on a host. `id` is the container's name."""

    id = models.CharField(primary_key=True, max_length=63)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="instances")
    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="instances")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="instances")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="instances")
    process = models.CharField(max_length=20)
    ordinal = models.PositiveIntegerField()
    wanted = models.CharField(max_length=10, default="running")  # protocol.Wanted
    routed = models.BooleanField(default=False)
    restart = models.BooleanField(default=False)
    observed = models.CharField(max_length=10, default="absent")  # protocol.Observed
    observed_at = models.DateTimeField(null=True, blank=True)
    address = models.CharField(max_length=64, blank=True)
    container_id = models.CharField(max_length=64, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    oom_killed = models.BooleanField(default=False)
    restarts = models.PositiveIntegerField(default=0)
    reason = models.TextField(blank=True)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    drain_until = models.DateTimeField(null=True, blank=True)


class PastInstance(models.Model):
    """A container that is gone, for as long as its streams of log and samples stay: an hour (worker.live.GONE_KEPT_S)."""

    KEPT = dt.timedelta(hours=1)

    id = models.CharField(primary_key=True, max_length=63)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="past_instances")
    process = models.CharField(max_length=20)
    ordinal = models.PositiveIntegerField()
    created_at = models.DateTimeField()
    gone_at = models.DateTimeField(db_index=True)
