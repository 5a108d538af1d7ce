"""An app to give images to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from portal.accounts.actor import Actor
    from portal.hosting.models import App
    from portal.images.blobs import Blobs
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
def store() -> Iterator[Blobs]:
    """The portal's blob store, empty before and after."""
    from portal.images.store import blob_store

    yield from emptied(blob_store())


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server of this test process's own."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def objects(s3: str, db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    """An empty bucket as the portal's blob store."""
    from portal.images import store
    from portal.images.objects import ObjectStore, storage_of

    (tmp_path / "blobs").write_text("key-id\nsecret\n")
    storage = storage_of(f"s3://images/moorage?endpoint={s3}&region=us-east-1", tmp_path / "blobs")
    storage.bucket.create()
    made = ObjectStore(storage, tmp_path / "incoming")
    monkeypatch.setattr(store, "_store_at", lambda root, url: made)
    yield from emptied(made)
    made.sweep_incoming(older_than_s=-1)
    assert list(storage.bucket.objects.all()) == []
    storage.bucket.delete()


def emptied(store: Blobs) -> Iterator[Blobs]:
    """Hand it out, and see that nothing half-made is left."""
    yield store
    assert list(store.incoming.iterdir()) == []
    for digest in list(store.digests()):
        store.remove(digest)


@pytest.fixture(params=["files", "objects"])
def either(request: pytest.FixtureRequest) -> Blobs:
    """Both kinds of store, one after the other: for tests with the database."""
    return request.getfixturevalue("store" if request.param == "files" else "objects")
