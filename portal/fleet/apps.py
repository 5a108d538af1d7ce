"""Registers the fleet app with Django."""

from django.apps import AppConfig


class FleetConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.fleet"
    default_auto_field = "django.db.models.BigAutoField"
