"""What ends by itself: drains that took too long, apps whose last container is gone."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from portal import hints
from portal.accounts.actor import SYSTEM
from portal.audit.actions import record
from portal.fleet.models import Host
from portal.hosting.models import App
from portal.images.models import Tag
from portal.images.target import repository_of
from portal.releases.models import Deployment, DeploymentState, Instance, Release
from portal.releases.rollout import ACTIVE


def settle(host: Host | None = None) -> None:
    """Two queries when there is nothing to do. `host` narrows the drains to one host."""
    over = Instance.objects.filter(wanted="draining", drain_until__lt=timezone.now())
    if host is not None:
        over = over.filter(host=host)
    names = set(over.values_list("host__name", flat=True))
    if names:
        over.update(wanted="removed")
    for name in names:
        hints.host_changed(name)
    for app in App.objects.filter(deleting_at__isnull=False, instances=None).select_related("team"):
        _delete(app)


@transaction.atomic
def _delete(app: App) -> None:
    """Rows in the order their protected references allow. Images stay with the team, but their tags keep them no longer."""
    locked = App.objects.select_for_update().filter(pk=app.pk).first()
    if locked is None or Instance.objects.filter(app=app).exists():
        return
    Deployment.objects.filter(app=app).delete()
    Release.objects.filter(app=app).delete()
    Tag.objects.filter(repository=repository_of(app)).delete()
    record(SYSTEM, "deleted", "app", app.slug, team=app.team.slug)
    app_id = app.pk
    locked.delete()
    hints.page_changed(app_id, "deleted")


@transaction.atomic
def forget_old_releases(app: App) -> int:
    """Delete the oldest releases beyond the plan's `releases_kept`, with their deployments; what runs or moves is kept."""
    numbers = Release.objects.filter(app=app).order_by("-number").values_list("number", flat=True)
    kept = list(numbers[: max(app.plan.releases_kept, 1)])
    if not kept:
        return 0
    needed = Q(instances__isnull=False) | Q(deployments__state__in=[*ACTIVE, DeploymentState.LIVE])
    old = Release.objects.filter(app=app, number__lt=min(kept))
    ids = set(old.values_list("pk", flat=True)) - set(old.filter(needed).values_list("pk", flat=True))
    Deployment.objects.filter(release__in=ids).delete()
    Release.objects.filter(pk__in=ids).delete()
    return len(ids)
