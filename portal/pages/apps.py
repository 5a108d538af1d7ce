"""Registers the pages app with Django."""

from django.apps import AppConfig


class PagesConfig(AppConfig):
    """Django's handle on this app; it has no rows of its own."""

    name = "portal.pages"
