"""An app and how it should be run, apart from what it runs (that is a release)."""

from __future__ import annotations

from django.db import models

from portal.accounts.models import Team
from portal.plans.models import Plan
from portal.volumes.models import Volume


class App(models.Model):
    """A name under which a team runs images. `slug` is a DNS label, unique on the platform."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="apps")
    slug = models.CharField(max_length=40, unique=True)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="apps")
    wanted = models.CharField(max_length=8, default="running", choices=[("running", "Running"), ("stopped", "Stopped")])
    no_new_privs = models.BooleanField(default=True)
    health_path = models.CharField(max_length=255, blank=True)  # empty: TCP, unless the image has an HTTP check
    port = models.PositiveIntegerField(null=True, blank=True)  # empty: from the image, else 8080
    deploy_on_push = models.BooleanField(default=False)
    follow_tag = models.CharField(max_length=128, default="latest")  # a push of this tag deploys, with deploy_on_push
    restart_generation = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    deleting_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.slug

    @property
    def image_limit_bytes(self) -> int:
        """The largest image its plan allows; 0 is no limit."""
        return self.plan.image_bytes


class Process(models.Model):
    """A kind of process of an app and how many of it; `web` gets the traffic."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="processes")
    name = models.CharField(max_length=20, default="web")
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["app", "name"], name="one_process_of_a_name")]


class EnvVar(models.Model):
    """One variable, encrypted at rest (MultiFernet). Values are masked whenever they are read."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="environment")
    key = models.CharField(max_length=128)
    value_encrypted = models.BinaryField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["key"]
        constraints = [models.UniqueConstraint(fields=["app", "key"], name="one_value_per_key")]


class Mount(models.Model):
    """A volume of the team in an app, at `path`. `subpath` names a folder in the volume, made when it is missing."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="mounts")
    volume = models.ForeignKey(Volume, on_delete=models.PROTECT, related_name="mounts")
    path = models.CharField(max_length=255)
    read_only = models.BooleanField(default=False)
    subpath = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["app", "path"], name="one_mount_at_a_path")]
