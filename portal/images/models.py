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


# What runs here; a list of manifests; everything else that is kept beside images: signatures, charts, other machines' images.
KINDS = ("image", "index", "artifact")


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
    kind = models.CharField(max_length=8, default="image", choices=[(kind, kind) for kind in KINDS])
    artifact_type = models.CharField(max_length=255, blank=True)
    subject = models.CharField(max_length=71, blank=True)  # digest of the manifest that this one is about
    annotations = models.JSONField(default=dict)
    parts = models.ManyToManyField("self", symmetrical=False, related_name="wholes")  # what an index lists

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["repository", "digest"], name="one_image_per_repository_and_digest")
        ]
        indexes = [models.Index(fields=["repository", "subject"])]


class Tag(models.Model):
    """A name of a manifest in its repository; it moves. What was pushed under a name stays while it has it."""

    repository = models.CharField(max_length=90)
    name = models.CharField(max_length=128)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="tags")
    pushed = models.BooleanField(default=False)  # else it came with an archive, and keeps nothing
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "name"], name="one_tag_of_a_name")]


class BlobUpload(models.Model):
    """A blob that is being pushed: bytes so far lie in a file of its id, whose length is the offset."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    team = models.ForeignKey(Team, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    repository = models.CharField(max_length=90)
    reserved_bytes = models.PositiveBigIntegerField(default=0)  # of the team's quota
    hashed_bytes = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=71, blank=True)  # of the first `hashed_bytes`
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)


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
