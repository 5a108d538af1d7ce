"""Who did what, through which door."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Entry(models.Model):
    """One action. `details` never holds a secret's value."""

    at = models.DateTimeField(auto_now_add=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    team_slug = models.CharField(max_length=40, blank=True)
    verb = models.CharField(max_length=40)
    object_kind = models.CharField(max_length=20)
    object_name = models.CharField(max_length=120)
    door = models.CharField(max_length=8)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["team_slug", "-at"])]
