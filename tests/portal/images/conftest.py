"""An app to give images to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from portal.accounts.actor import Actor
    from portal.hosting.models import App
    from portal.images.blobs import BlobStore
    from portal.plans.models import Plan
    from tests.conftest import People


@pytest.fixture
def app(people: People, plans: dict[str, Plan]) -> App:
    """`shop` of team acme."""
    from portal.hosting.models import App

    return App.objects.create(team=people.team, slug="shop", plan=plans["nano"])


@pytest.fixture
def developer(people: People) -> Actor:
    """Who deploys."""
    from portal.accounts.actor import Actor

    return Actor(user=people.developer, door="api")


@pytest.fixture
def store() -> Iterator[BlobStore]:
    """The portal's blob store, empty before and after."""
    from portal.images.store import blob_store

    made = blob_store()
    yield made
    assert list(made.incoming.iterdir()) == []
    for digest in list(made.digests()):
        made.remove(digest)
