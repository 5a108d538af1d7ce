"""The safety net: what the fast path missed. Every task may run twice."""

from __future__ import annotations

import datetime as dt
import logging

from celery import shared_task
from django.utils import timezone

from portal.accounts.models import KeptAnswer
from portal.hosting.models import App
from portal.images.collect import GRACE_WHEN_TIGHT_S, UNUSED_KEPT_WHEN_TIGHT, collect, is_tight
from portal.releases.advance import advance
from portal.releases.models import Deployment
from portal.releases.rollout import ACTIVE
from portal.releases.settle import forget_old_releases, settle
from worker.protocol import TASK_ADVANCE

log = logging.getLogger(__name__)


@shared_task(name=TASK_ADVANCE)  # type: ignore[untyped-decorator]  # celery's decorators are untyped
def advance_task(deployment_id: int) -> None:
    """Go on with one deployment."""
    advance(deployment_id)


@shared_task(name="releases.reap")  # type: ignore[untyped-decorator]
def reap() -> None:
    """Go on with every deployment under way: one that stopped moving meets its deadline here."""
    for deployment_id in Deployment.objects.filter(state__in=ACTIVE).order_by("pk").values_list("pk", flat=True):
        advance(deployment_id)
    settle()


@shared_task(name="releases.tidy")  # type: ignore[untyped-decorator]
def tidy() -> None:
    """Forget answers kept for idempotency after a day, and releases beyond what the plan keeps."""
    KeptAnswer.objects.filter(created_at__lt=timezone.now() - dt.timedelta(days=1)).delete()
    for app in App.objects.select_related("plan"):
        forget_old_releases(app)


@shared_task(name="releases.relieve")  # type: ignore[untyped-decorator]
def relieve() -> int:
    """Every ten seconds, while the portal's disk is nearly full: what tidying and collection would take away in their hour goes now."""
    if not is_tight():
        return 0
    for app in App.objects.select_related("plan"):
        forget_old_releases(app)
    gone = collect(grace_s=GRACE_WHEN_TIGHT_S, unused_kept=UNUSED_KEPT_WHEN_TIGHT)
    if gone.blobs or gone.images:
        log.warning(
            "The disk is nearly full: %d images and %d blobs went, %d bytes.", gone.images, gone.blobs, gone.freed_bytes
        )
    return gone.blobs
