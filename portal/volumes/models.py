"""A volume of a team: a file system of its own on one host."""

from __future__ import annotations

from django.db import models

from portal.accounts.models import Team
from portal.fleet.models import Host


class Volume(models.Model):
    """Kept until somebody deletes it. `host` is where it lies, unknown until an instance with it is placed.

    Of one that is not `shared` only one instance has it for writing at a time: the running one stops before the next starts.
    `used_bytes` is what its host last said.
    """

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="volumes")
    name = models.CharField(max_length=40)
    size_bytes = models.PositiveBigIntegerField()
    shared = models.BooleanField(default=False)
    host = models.ForeignKey(Host, null=True, blank=True, on_delete=models.PROTECT, related_name="volumes")
    used_bytes = models.PositiveBigIntegerField(default=0)
    trouble = models.TextField(blank=True)  # what its host could not do with it, in a sentence
    created_at = models.DateTimeField(auto_now_add=True)
    deleting_at = models.DateTimeField(null=True, blank=True)
    backup_hours = models.PositiveIntegerField(default=0)  # 0: none by themselves
    backups_kept = models.PositiveIntegerField(default=7)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="one_volume_of_a_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def engine_name(self) -> str:
        """How engines call it. The number keeps a new one apart from a deleted one of the same name."""
        return f"{self.team.slug}.{self.name}.{self.pk}"


class Task(models.Model):
    """Something a host is to do with a volume; it is over when the host has said so, and may be done again until then."""

    class State(models.TextChoices):
        """`waiting` until the host has said how it went."""

        WAITING = "waiting"
        DONE = "done"
        FAILED = "failed"

    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class Backup(Task):
    """What was in a volume at one moment: a tar in chunks. It stays when the volume goes.

    `size_bytes` is the tar's, `digest` its sha256, `stored_bytes` what it added to the store.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="backups")
    volume = models.ForeignKey(Volume, null=True, on_delete=models.SET_NULL, related_name="backups")
    volume_name = models.CharField(max_length=40)
    number = models.PositiveIntegerField()
    scheduled = models.BooleanField(default=False)
    size_bytes = models.PositiveBigIntegerField(default=0)
    stored_bytes = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=71, blank=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["team", "number"], name="one_backup_of_a_number")]


class Restore(Task):
    """Putting a backup in the place of what is in a volume."""

    volume = models.ForeignKey(Volume, on_delete=models.CASCADE, related_name="restores")
    backup = models.ForeignKey(Backup, on_delete=models.PROTECT, related_name="restores")

    class Meta:
        ordering = ["-pk"]
