"""Pages of the volumes app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.volumes import views

app_name = "volumes"
urlpatterns: list[URLPattern | URLResolver] = [
    path("teams/<slug:slug>/volumes", views.volumes, name="list"),
    path("teams/<slug:slug>/backups/<int:number>", views.download, name="backup"),
    path("teams/<slug:slug>/volumes/<slug:name>", views.volume, name="volume"),
]
