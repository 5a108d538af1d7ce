"""Registers the accounts app with Django."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.accounts"
    default_auto_field = "django.db.models.BigAutoField"
