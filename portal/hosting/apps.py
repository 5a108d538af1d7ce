"""Registers the hosting app with Django."""

from django.apps import AppConfig


class HostingConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.hosting"
    default_auto_field = "django.db.models.BigAutoField"
