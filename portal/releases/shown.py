"""What the pages of an app have in common."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from portal.accounts.access import actor_of, can
from portal.hosting.models import App
from portal.releases.models import Deployment, Instance
from portal.releases.summary import app_status, gist, names, serving_release


def instances_shown(app: App) -> list[Instance]:
    """Those of an app's instances that pages list, with what they say of each."""
    found = Instance.objects.filter(app=app).exclude(wanted="removed").select_related("release", "host")
    return list(found.order_by("process", "ordinal", "-created_at"))


def shown(request: HttpRequest, app: App, tab: str) -> dict[str, Any]:
    """What every tab of an app shows: state, address, rights."""
    actor = actor_of(request)
    instances = instances_shown(app)
    last = Deployment.objects.filter(app=app).select_related("release", "created_by").first()
    return {
        "app": app, "team": app.team, "tab": tab, "section": "apps", "instances": instances, "last": last, "gist": gist(app, last, instances),
        "status": app_status(app, last, instances), "release": serving_release(instances), "names": names(instances),
        "may_deploy": can(actor, "deploy", app.team), "may_write": can(actor, "write", app.team),
    }  # fmt: skip
