"""Every address of the portal that Django answers; websockets and raw ASGI are in `asgi.py`."""

from __future__ import annotations

from allauth.account import views as allauth
from django.urls import include, path, re_path

from portal import health, internal
from portal.accounts.views import forgot
from portal.api import api, nothing_here
from portal.telemetry import prometheus

# Of django-allauth's pages those that are ours to look at. It asks for the names of the last two.
ENTRANCE = [
    path("login/", allauth.login, name="account_login"),
    path("logout/", allauth.logout, name="account_logout"),
    path("inactive/", allauth.account_inactive, name="account_inactive"),
    path("password/change/", allauth.password_change, name="account_change_password"),
    path("password/reset/", forgot, name="account_reset_password"),
    path("signup/", allauth.signup, name="account_signup"),
]

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", prometheus.metrics),
    path("api/v1/", api.urls),
    re_path(r"^api/", nothing_here),
    path("internal/v1/hosts/<slug:host>/desired", internal.desired),
    path("internal/v1/hosts/<slug:host>/report", internal.report),
    path("internal/v1/hosts/<slug:host>/events", internal.events),
    path("internal/v1/hosts/<slug:host>/backups/<int:number>/missing", internal.missing_chunks),
    path("internal/v1/hosts/<slug:host>/backups/<int:number>/chunks/<slug:digest>", internal.backup_chunk),
    path("internal/v1/hosts/<slug:host>/backups/<int:number>/end", internal.backup_end),
    path("internal/v1/hosts/<slug:host>/restores/<int:number>/content", internal.restore_content),
    path("internal/v1/hosts/<slug:host>/restores/<int:number>/end", internal.restore_end),
    path("accounts/", include(ENTRANCE)),
    path("", include("portal.accounts.urls")),
    path("", include("portal.hosting.urls")),
    path("", include("portal.volumes.urls")),
    path("", include("portal.releases.urls")),
    path("", include("portal.plans.urls")),
    path("", include("portal.fleet.urls")),
    path("", include("portal.images.urls")),
    path("", include("portal.telemetry.urls")),
    path("", include("portal.audit.urls")),
    path("", include("portal.pages.urls")),
]
