"""Pages of the hosting app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

app_name = "hosting"
urlpatterns: list[URLPattern | URLResolver] = []
