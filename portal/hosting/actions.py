"""Making and configuring apps. What touches running containers is in `releases.actions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction

from portal import secrets
from portal.accounts.access import require
from portal.accounts.actions import check_label
from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.audit.actions import record
from portal.config import config
from portal.errors import Conflict, Forbidden, Invalid
from portal.hosting.environment import check_changes, check_whole, read_environment
from portal.hosting.models import App, EnvVar, Process
from portal.hosting.usage import plan_sums, reserved_by
from portal.images.tags import LATEST, is_tag
from portal.plans.actions import default_plan, lock_quota, take
from portal.plans.models import Plan

_RESERVED = """
admin api app apps auth dashboard git internal localhost login mail moorage portal registry static status support
system v2 www
"""
RESERVED_NAMES = frozenset(_RESERVED.split())
_SETTINGS = frozenset({"port", "health_path", "no_new_privs", "deploy_on_push", "follow_tag"})


def check_app_name(slug: str) -> str:
    """A DNS label nobody else and the platform itself does not use; raises Invalid."""
    check_label(slug, "an app")
    if slug in RESERVED_NAMES or config().app_host(slug) == config().portal_host:
        raise Invalid(f"{slug!r} is reserved for the platform.", "Choose another name.", code="invalid_name")
    return slug


def _check_settings(settings: Mapping[str, Any]) -> None:
    unknown = set(settings) - _SETTINGS
    if unknown:
        raise Invalid(f"{', '.join(sorted(unknown))} cannot be set.", f"Settings: {', '.join(sorted(_SETTINGS))}.")
    port, path = settings.get("port"), settings.get("health_path", "")
    if port is not None and (not isinstance(port, int) or not 1 <= port <= 65535):
        raise Invalid(f"port is {port!r}: give a number from 1 to 65535.")
    if not isinstance(path, str) or (path and (not path.startswith("/") or len(path) > 255 or not path.isprintable())):
        raise Invalid(f"health_path is {path!r}: give a path that begins with / or nothing.")
    tag = settings.get("follow_tag", LATEST)
    if not isinstance(tag, str) or not is_tag(tag):
        raise Invalid(
            f"follow_tag is {tag!r}: give a tag of letters, digits, dots, hyphens and underscores, such as latest."
        )


@transaction.atomic
def create_app(actor: Actor, team: Team, *, slug: str, plan: Plan | None = None, **settings: Any) -> App:
    """Add an app with one `web` process; `settings`: port, health_path, no_new_privs, deploy_on_push, follow_tag.

    Raises Invalid for a bad name or setting, Conflict for a name in use, OverQuota with the figures.
    """
    require(actor, "write", team, missing=f"There is no team {team.slug!r}.")
    if actor.app_slug and actor.app_slug != slug:
        raise Forbidden(f"This token is for the app {actor.app_slug} alone.")
    check_app_name(slug)
    _check_settings(settings)
    chosen = plan or default_plan()
    if chosen.retired_at is not None:
        raise Invalid(f"Plan {chosen.slug} takes no new apps.", "Choose another plan.")
    lock_quota(team)
    take(team, reserved_by(team), plan_sums(chosen, 1, apps=1))
    try:
        with transaction.atomic():
            app = App.objects.create(team=team, slug=slug, plan=chosen, **settings)
    except IntegrityError:
        raise Conflict(
            f"An app called {slug} exists already on this platform.", "Choose another name.", code="name_taken"
        ) from None
    Process.objects.create(app=app, name="web", count=1)
    record(actor, "create", "app", slug, team=team.slug, plan=chosen.slug, **settings)
    return app


@transaction.atomic
def update_app(actor: Actor, app: App, **settings: Any) -> App:
    """Change port, health_path or no_new_privs, which count from the next release on, or which pushes deploy."""
    require(actor, "write", app.team, missing=f"There is no app {app.slug!r}.")
    _check_settings(settings)
    for name, value in settings.items():
        setattr(app, name, value)
    app.save(update_fields=list(settings))
    record(actor, "update", "app", app.slug, team=app.team.slug, **settings)
    return app


@transaction.atomic
def set_env(actor: Actor, app: App, changes: Mapping[str, str | None]) -> list[str]:
    """Set variables (None removes) and return the names that changed. `releases.actions.redeploy` makes them count."""
    require(actor, "write", app.team, missing=f"There is no app {app.slug!r}.")
    check_changes(changes)
    App.objects.select_for_update(no_key=True).get(pk=app.pk)
    before = read_environment(app)
    changed = sorted(key for key, value in changes.items() if before.get(key) != value)
    check_whole({key: value for key, value in {**before, **changes}.items() if value is not None})
    for key in changed:
        value = changes[key]
        if value is None:
            EnvVar.objects.filter(app=app, key=key).delete()
            continue
        sealed = secrets.encrypt(value.encode())
        EnvVar.objects.update_or_create(app=app, key=key, defaults={"value_encrypted": sealed})
    if changed:
        record(actor, "set_env", "app", app.slug, team=app.team.slug, keys=changed)
    return changed
