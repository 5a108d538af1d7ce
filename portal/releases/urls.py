"""Pages of the releases app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

app_name = "releases"
urlpatterns: list[URLPattern | URLResolver] = []
