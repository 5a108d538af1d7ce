"""Registers the plans app with Django."""

from django.apps import AppConfig


class PlansConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.plans"
    default_auto_field = "django.db.models.BigAutoField"
