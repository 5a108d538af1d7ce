"""What images need to know of an app, so that this package need not import `hosting`, which stands above it."""

from __future__ import annotations

from typing import Protocol

from portal.accounts.models import Team


class Target(Protocol):
    """An app, as far as an image is concerned: `hosting.models.App` fits."""

    @property
    def slug(self) -> str:
        """The app's name."""
        ...

    @property
    def team(self) -> Team:
        """The team whose quota holds the image."""
        ...

    @property
    def image_limit_bytes(self) -> int:
        """The largest image its plan allows; 0 is no limit."""
        ...


def repository_of(app: Target) -> str:
    """`<team>/<app>`: the repository of an app's images."""
    return f"{app.team.slug}/{app.slug}"
