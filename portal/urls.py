"""Every address of the portal that Django answers; websockets and raw ASGI are in `asgi.py`."""

from __future__ import annotations

from django.urls import include, path, re_path

from portal import health, internal
from portal.api import api, nothing_here
from portal.telemetry import prometheus

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", prometheus.metrics),
    path("api/v1/", api.urls),
    re_path(r"^api/", nothing_here),
    path("internal/v1/hosts/<slug:host>/desired", internal.desired),
    path("internal/v1/hosts/<slug:host>/report", internal.report),
    path("internal/v1/hosts/<slug:host>/events", internal.events),
    path("accounts/", include("allauth.urls")),
    path("", include("portal.accounts.urls")),
    path("", include("portal.hosting.urls")),
    path("", include("portal.releases.urls")),
    path("", include("portal.plans.urls")),
    path("", include("portal.fleet.urls")),
    path("", include("portal.images.urls")),
    path("", include("portal.telemetry.urls")),
    path("", include("portal.audit.urls")),
    path("", include("portal.pages.urls")),
]
