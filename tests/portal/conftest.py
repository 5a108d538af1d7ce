"""An app with an image and a host, for tests of what runs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from portal.accounts.actor import Actor
    from portal.hosting.models import App
    from portal.images.models import Image
    from tests.conftest import People
    from tests.portal.host import HostDriver


@pytest.fixture
def host(db: None) -> HostDriver:
    """A host that has reported."""
    from tests.portal.host import HostDriver

    return HostDriver.register()


@pytest.fixture
def acting(people: People) -> Actor:
    """The team's owner at the API's door."""
    from portal.accounts.actor import Actor

    return Actor(user=people.owner, door="api")


@pytest.fixture
def make_image(people: People) -> Callable[..., Image]:
    """Makes an image row of an app, as an upload would leave it."""
    from portal.images.models import Image

    def make(app: App, name: str = "one", **config: object) -> Image:
        return Image.objects.create(
            team=app.team,
            repository=f"{app.team.slug}/{app.slug}",
            digest="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
            media_type="application/vnd.oci.image.manifest.v1+json",
            size_bytes=5_000_000,
            config={"exposed_ports": ["9000/tcp"], **config},
            reference=f"{app.slug}:{name}",
        )

    return make


@pytest.fixture
def app(people: People, plans: object, acting: Actor) -> App:
    """The app `hello` of team acme."""
    from portal.hosting.actions import create_app

    return create_app(acting, people.team, slug="hello")


@pytest.fixture(autouse=True)
def _redis(valkey: str) -> None:
    """Every test of the portal has its Valkey: hints go where they would go."""
