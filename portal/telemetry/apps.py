"""Registers the telemetry app with Django."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.telemetry"
    default_auto_field = "django.db.models.BigAutoField"
