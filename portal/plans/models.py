"""What an instance may use (Plan) and what a team may use in sum (TeamQuota)."""

from __future__ import annotations

from django.db import models

from portal.accounts.models import Team


class Plan(models.Model):
    """Kernel limits for one instance, and counts. 0 means no limit of this kind, except where a count says otherwise."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=60)
    version = models.PositiveIntegerField(default=1)
    position = models.PositiveIntegerField(default=0)
    is_default = models.BooleanField(default=False)
    retired_at = models.DateTimeField(null=True, blank=True)
    cpu_millicores = models.PositiveIntegerField()
    cpu_weight = models.PositiveIntegerField(default=100)
    memory_bytes = models.PositiveBigIntegerField()
    swap_bytes = models.PositiveBigIntegerField(default=0)
    pids = models.PositiveIntegerField(default=256)
    disk_bytes = models.PositiveBigIntegerField()
    disk_read_bps = models.PositiveBigIntegerField(default=0)  # bytes per second
    disk_write_bps = models.PositiveBigIntegerField(default=0)
    disk_read_iops = models.PositiveIntegerField(default=0)
    disk_write_iops = models.PositiveIntegerField(default=0)
    net_in_bps = models.PositiveBigIntegerField(default=0)  # bits per second
    net_out_bps = models.PositiveBigIntegerField(default=0)
    log_bytes_per_s = models.PositiveIntegerField(default=1_000_000)
    log_bytes = models.PositiveBigIntegerField(default=50_000_000)
    log_days = models.PositiveIntegerField(default=7)
    instances_max = models.PositiveIntegerField(default=4)
    volumes_max = models.PositiveIntegerField(default=5)
    domains_max = models.PositiveIntegerField(default=5)
    releases_kept = models.PositiveIntegerField(default=20)
    image_bytes = models.PositiveBigIntegerField(default=0)  # of one image; 0: the team's quota alone

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug


class TeamQuota(models.Model):
    """Sums a team's apps may reach together. An action locks this row before it checks (plans.check.fits)."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, related_name="quota")
    apps = models.PositiveIntegerField(default=20)
    instances = models.PositiveIntegerField(default=40)
    cpu_millicores = models.PositiveIntegerField(default=8000)
    memory_bytes = models.PositiveBigIntegerField(default=16 * 1024**3)
    disk_bytes = models.PositiveBigIntegerField(default=100 * 1024**3)
    image_bytes = models.PositiveBigIntegerField(default=20 * 1024**3)
    volumes = models.PositiveIntegerField(default=20)
    volume_bytes = models.PositiveBigIntegerField(default=100 * 1024**3)
    backup_bytes = models.PositiveBigIntegerField(default=100 * 1024**3)
