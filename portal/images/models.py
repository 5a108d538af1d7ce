"""What was uploaded: blobs by digest, images, and uploads under way."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from portal.accounts.models import Team


class Blob(models.Model):
    """A file in the blob store, named by its digest (`sha256:…`)."""

    digest = models.CharField(max_length=71, unique=True)
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)


class BlobClaim(models.Model):
    """A team was told that it has this blob and need not send it: it stays until then, and counts as the team's."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="blob_claims")
    repository = models.CharField(max_length=90)  # <team>/<app> of the app that asked
    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="claims")
    until = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["repository", "blob"], name="one_claim_of_a_repository_and_blob")
        ]


class BlobObject(models.Model):
    """Where an object store has a blob: the object at `key`, written once for this row alone (portal.images.objects)."""

    digest = models.CharField(max_length=71, unique=True)
    key = models.CharField(max_length=255)
    size_bytes = models.PositiveBigIntegerField()
    touched_at = models.DateTimeField()


class Image(models.Model):
    """A manifest of a team, with what its configuration says. Its blobs count toward the team's quota once each."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="images")
    repository = models.CharField(max_length=90)  # <team>/<app>
    digest = models.CharField(max_length=71)  # of the manifest
    media_type = models.CharField(max_length=120)
    size_bytes = models.PositiveBigIntegerField()
    config = models.JSONField(
        default=dict
    )  # runtime.images.format.ImageConfig as JSON: entrypoint, cmd, env, user, port, …
    reference = models.CharField(max_length=255, blank=True)  # as the archive or the push named it
    blobs = models.ManyToManyField(Blob, related_name="images")
    created_at = models.DateTimeField(auto_now_add=True)  # when it was last sent
    deployed_at = models.DateTimeField(null=True, blank=True)  # since it was sent; None: nobody has deployed it yet
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["repository", "digest"], name="one_image_per_repository_and_digest")
        ]


class Upload(models.Model):
    """A resumable upload (tus): bytes so far lie in a file of its id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    team = models.ForeignKey(Team, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    app_slug = models.CharField(max_length=40)
    file_name = models.CharField(max_length=255, blank=True)
    size_bytes = models.PositiveBigIntegerField()
    offset_bytes = models.PositiveBigIntegerField(default=0)
    image = models.ForeignKey(Image, null=True, blank=True, on_delete=models.SET_NULL)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
