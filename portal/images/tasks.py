"""What beat starts for images; all may run twice."""

from __future__ import annotations

from celery import shared_task

from portal.images import collect, uploads


@shared_task(name="images.sweep_uploads")
def sweep_uploads() -> int:
    """Every ten minutes: expired uploads."""
    return uploads.sweep()


@shared_task(name="images.collect")
def collect_blobs() -> int:
    """Every hour: blobs that no image needs."""
    return collect.collect().blobs
