"""Addresses of the pages that show several apps' rows together."""

from __future__ import annotations

from django.urls import path

from portal.pages import operator, storage, views

app_name = "pages"
urlpatterns = [
    path("", views.home, name="home"),
    path("teams/<slug:slug>/", views.apps, name="apps"),
    path("teams/<slug:slug>/images", storage.team, name="images"),
    path("apps/<slug:slug>/", views.overview, name="overview"),
    path("apps/<slug:slug>/part/<slug:name>", views.part, name="part"),
    path("operator/", operator.overview, name="operator"),
    path("operator/storage", storage.store, name="storage"),
    path("operator/teams", operator.teams, name="teams"),
    path("operator/teams/<slug:slug>", operator.team, name="team"),
    path("operator/teams/<slug:slug>/add", operator.add, name="add_member"),
    path("operator/plans/<slug:slug>", operator.plan, name="plan"),
    path("operator/plans/<slug:slug>/effects", operator.effects, name="effects"),
]
