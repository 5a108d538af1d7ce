"""What was measured, and which limits were hit."""

from __future__ import annotations

import datetime as dt

from django.db import models

from portal.hosting.models import App


class MinuteMetric(models.Model):
    """One instance's minute: averages of gauges and rates, and the highest memory."""

    app = models.ForeignKey(App, on_delete=models.CASCADE)
    instance = models.CharField(max_length=63)
    minute = models.DateTimeField()
    cpu_millicores = models.FloatField()
    memory_bytes = models.BigIntegerField()
    memory_max_bytes = models.BigIntegerField()
    net_in_bps = models.FloatField()
    net_out_bps = models.FloatField()
    disk_read_bps = models.FloatField()
    disk_write_bps = models.FloatField()
    disk_used_bytes = models.BigIntegerField()
    pids = models.IntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["instance", "minute"], name="one_row_per_instance_and_minute")]
        indexes = [models.Index(fields=["app", "minute"])]


class LimitEvent(models.Model):
    """A limit that was hit, with the sentence people read: first at `since`, and last at `at`."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="limit_events")
    instance = models.CharField(max_length=63)
    limit = models.CharField(max_length=12)
    level = models.CharField(max_length=10)
    used = models.FloatField()
    allowed = models.FloatField()
    process = models.CharField(max_length=64, blank=True)
    sentence = models.TextField()
    at = models.DateTimeField()
    since = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["app", "-at"])]

    @property
    def began(self) -> dt.datetime:
        """When it was first hit."""
        return self.since or self.at

    @property
    def lasted_s(self) -> float:
        """How long it has been hit, on and off."""
        return (self.at - self.began).total_seconds()
