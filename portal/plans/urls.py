"""Pages of the plans app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.plans import views

app_name = "plans"
urlpatterns: list[URLPattern | URLResolver] = [
    path("operator/plans", views.plans, name="list"),
    path("operator/plans/new", views.new, name="new"),
    path("operator/plans/<slug:slug>/retire", views.retire, name="retire"),
]
