"""Loading deployments, releases and instances through their app."""

from __future__ import annotations

from portal.accounts.access import Verb
from portal.accounts.actor import Actor
from portal.errors import NotFound
from portal.hosting.access import get_app
from portal.releases.models import Deployment, Instance, Release


def get_deployment(actor: Actor, app_slug: str, number: int, verb: Verb = "read") -> Deployment:
    """Deployment `number` of the app, with release and image loaded."""
    app = get_app(actor, app_slug, verb)
    rows = Deployment.objects.select_related("app__team", "app__plan", "release__image", "created_by")
    deployment = rows.filter(app=app, number=number).first()
    if deployment is None:
        raise NotFound(f"{app.slug} has no deployment {number}.")
    return deployment


def get_release(actor: Actor, app_slug: str, number: int, verb: Verb = "read") -> Release:
    """Release `number` of the app, with its image."""
    app = get_app(actor, app_slug, verb)
    release = Release.objects.select_related("image", "app__team").filter(app=app, number=number).first()
    if release is None:
        raise NotFound(f"{app.slug} has no release {number}.")
    return release


def get_instance(actor: Actor, instance_id: str, verb: Verb = "read") -> Instance:
    """The instance; as hidden from strangers as its app."""
    row = Instance.objects.select_related("app__team", "host", "release").filter(pk=instance_id).first()
    if row is None:
        raise NotFound(f"There is no instance {instance_id!r}.")
    try:
        get_app(actor, row.app.slug, verb)
    except NotFound:
        raise NotFound(f"There is no instance {instance_id!r}.") from None
    return row
