"""The web process's one application: Django, websockets, and the raw ASGI doors that stream bodies."""

from __future__ import annotations

import os
import re
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup(set_prefix=False)

from channels.routing import URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import get_resolver  # noqa: E402

from portal import hints  # noqa: E402
from portal.django_asgi import DjangoApp  # noqa: E402
from portal.hosting.access import get_app  # noqa: E402
from portal.images.asgi import RegistryApp, UploadsApp  # noqa: E402
from portal.releases.deploy_asgi import deploy_app  # noqa: E402
from portal.releases.pushed import deploy_pushed  # noqa: E402
from portal.static_tree import StaticFiles  # noqa: E402
from portal.telemetry.routing import websocket_urlpatterns  # noqa: E402

_DEPLOY = re.compile(r"/api/v1/apps/[^/]+/(deployments|rollback)/?")

_static = StaticFiles(settings.STATIC_ROOT, settings.STATIC_DIGEST)
_websockets = URLRouter(websocket_urlpatterns)  # each socket checks its exact Origin and its right (telemetry.sockets)
_django = DjangoApp()
_uploads = UploadsApp(lambda actor, slug: get_app(actor, slug, "deploy"))
_registry = RegistryApp(lambda actor, slug: get_app(actor, slug, "deploy"), deploy_pushed)
# Resolved and loaded now, before gunicorn forks: the first request or hint would pay for it, in each process anew.
_ = get_resolver().url_patterns
hints.prepare()


def _choose(scope: dict[str, Any]) -> Any:
    path: str = scope["path"]
    if path.startswith("/static/"):
        return _static
    if path == "/v2" or path.startswith("/v2/"):
        return _registry
    if path.startswith("/api/v1/uploads"):
        return _uploads
    if scope["method"] == "POST" and _DEPLOY.fullmatch(path):
        return deploy_app
    return _django


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Give the connection to whoever answers it."""
    if scope["type"] == "websocket":
        await _websockets(scope, receive, send)
    elif scope["type"] == "http":
        await _choose(scope)(scope, receive, send)
    else:
        raise ValueError(f"no door for {scope['type']!r}; run uvicorn with lifespan off")
