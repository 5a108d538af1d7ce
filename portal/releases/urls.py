"""Pages of the releases app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path, re_path

from portal.releases import configuring, deploying, views, volume_pages

app_name = "releases"
urlpatterns: list[URLPattern | URLResolver] = [
    path("apps/<slug:slug>/deploy", deploying.deploy, name="deploy"),
    path("apps/<slug:slug>/images/<int:pk>", deploying.image, name="image"),
    path("apps/<slug:slug>/deployments", views.deployments, name="deployments"),
    path("apps/<slug:slug>/deployments/<int:number>", views.deployment, name="deployment"),
    path("apps/<slug:slug>/deployments/<int:number>/cancel", views.cancel, name="cancel"),
    path("apps/<slug:slug>/releases", views.releases, name="releases"),
    path("apps/<slug:slug>/releases/<int:number>/rollback", views.rollback, name="rollback"),
    path("apps/<slug:slug>/instances", views.instances, name="instances"),
    path("apps/<slug:slug>/environment", configuring.environment, name="environment"),
    path("apps/<slug:slug>/volumes", volume_pages.volumes, name="volumes"),
    path("apps/<slug:slug>/settings", configuring.settings, name="settings"),
    re_path(r"^apps/(?P<slug>[-\w]+)/do/(?P<name>start|stop|restart|scale|plan|delete)$", views.do, name="do"),
]
