"""People, teams and tokens: who may act."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A person who signs in. The operator runs the platform; every other right comes from memberships."""

    email = models.EmailField(unique=True)
    is_operator = models.BooleanField(default=False)
    theme = models.CharField(
        max_length=8, default="system", choices=[("system", "System"), ("light", "Light"), ("dark", "Dark")]
    )


class Role(models.TextChoices):
    """What a member may do in a team; each includes those below it."""

    OWNER = "owner", "Owner"
    MAINTAINER = "maintainer", "Maintainer"
    DEVELOPER = "developer", "Developer"
    VIEWER = "viewer", "Viewer"


class Team(models.Model):
    """Owns apps and a quota. `slug` is a DNS label, unique on the platform, and the first part of image repositories."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField[User, Membership] = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="teams"
    )

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    """A person's role in a team."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices, default=Role.DEVELOPER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "team"], name="one_membership_per_team")]


class ApiToken(models.Model):
    """A key for pipelines. Only its SHA-256 is kept; it belongs to a membership and dies with it."""

    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)  # of read, deploy, write, operator
    app_slug = models.CharField(max_length=40, blank=True)  # narrowed to one app when set
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)


class KeptAnswer(models.Model):
    """The answer to a POST that carried an Idempotency-Key: the same key gets it again for a day."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key = models.CharField(max_length=100)
    request_digest = models.CharField(max_length=64)  # sha256 of method, path and body
    status = models.PositiveIntegerField(default=0)  # 0 while the first call is under way
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_answer_per_key")]
