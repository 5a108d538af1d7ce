"""The machines that run apps."""

from __future__ import annotations

from django.db import models


class Host(models.Model):
    """One machine with an engine, a worker, an agent and an ingress. `seen_at` is its last report."""

    name = models.SlugField(max_length=40, unique=True)
    token_digest = models.CharField(max_length=64, unique=True)  # sha256 of the host token
    state = models.CharField(max_length=10, default="ready", choices=[("ready", "Ready"), ("draining", "Draining")])
    created_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(null=True, blank=True)
    facts = models.JSONField(default=dict)  # protocol.HostFacts
    route_generation = models.PositiveBigIntegerField(default=0)  # what its routes should be
    route_reported = models.PositiveBigIntegerField(default=0)  # what its ingress has
    labels = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.name
