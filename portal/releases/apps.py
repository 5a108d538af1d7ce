"""Registers the releases app with Django."""

from django.apps import AppConfig


class ReleasesConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.releases"
    default_auto_field = "django.db.models.BigAutoField"
