"""Pages of the hosting app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.hosting import views

app_name = "hosting"
urlpatterns: list[URLPattern | URLResolver] = [path("teams/<slug:slug>/new", views.new, name="new")]
