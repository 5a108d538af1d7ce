"""What beat starts for images; all may run twice."""

from __future__ import annotations

from celery import shared_task

from portal.accounts.actor import SYSTEM
from portal.audit.actions import record
from portal.images import collect, pushing, uploads


@shared_task(name="images.sweep_uploads")
def sweep_uploads() -> int:
    """Every ten minutes: uploads and pushes that were given up."""
    return uploads.sweep() + pushing.sweep()


@shared_task(name="images.collect")
def collect_blobs() -> int:
    """Every hour: blobs that no image needs."""
    gone = collect.collect()
    if gone.blobs or gone.images:
        record(SYSTEM, "collect", "store", "images", blobs=gone.blobs, images=gone.images, bytes=gone.freed_bytes)
    return gone.blobs
