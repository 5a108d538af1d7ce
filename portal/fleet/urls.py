"""Pages of the fleet app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.fleet import views

app_name = "fleet"
urlpatterns: list[URLPattern | URLResolver] = [path("operator/hosts", views.hosts, name="hosts")]
