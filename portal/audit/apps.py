"""Registers the audit app with Django."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.audit"
    default_auto_field = "django.db.models.BigAutoField"
