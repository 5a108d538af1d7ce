"""Registers the volumes app with Django."""

from django.apps import AppConfig


class VolumesConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.volumes"
    default_auto_field = "django.db.models.BigAutoField"
