"""Pages of the audit app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.audit import views

app_name = "audit"
urlpatterns: list[URLPattern | URLResolver] = [path("operator/audit", views.entries, name="entries")]
