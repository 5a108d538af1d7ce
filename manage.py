#!/usr/bin/env python
"""Django's command line for the portal."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Run one management command; `bootstrap` and `migrate` first make the secrets that the settings read."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if sys.argv[1:2] in (["bootstrap"], ["migrate"]):
        from portal.config import load
        from portal.secrets import ensure

        ensure(load().secrets)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
