"""Registers the images app with Django."""

from django.apps import AppConfig


class ImagesConfig(AppConfig):
    """Django's handle on this app."""

    name = "portal.images"
    default_auto_field = "django.db.models.BigAutoField"
