"""Pages of the telemetry app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.telemetry import views

app_name = "telemetry"
urlpatterns: list[URLPattern | URLResolver] = [
    path("apps/<slug:slug>/logs", views.logs, name="logs"),
    path("apps/<slug:slug>/logs/download", views.download, name="download"),
    path("apps/<slug:slug>/metrics", views.metrics, name="metrics"),
]
