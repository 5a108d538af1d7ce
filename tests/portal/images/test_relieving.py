"""A disk that is nearly full is relieved by itself, as often as an app is deployed, and what can be rolled back to stays."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections import namedtuple

import pytest
from django.db import transaction

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.blobs import BlobStore
from portal.images.models import Image
from portal.releases.making import make_release
from portal.releases.models import Release
from portal.releases.tasks import relieve
from scripts.demo_image import Contents, ballast_layer, build
from tests.portal.images import archives
from tests.portal.images.ages import make_old

pytestmark = pytest.mark.django_db(transaction=True)

DEPLOYS, KEPT = 12, 3
Usage = namedtuple("Usage", "total used free")


def changing(number: int) -> bytes:
    buffer = io.BytesIO()
    build(buffer, Contents(layer=ballast_layer(1, number)), tag=f"shop:{number}")
    return buffer.getvalue()


def stored_bytes(store: BlobStore) -> int:
    return sum(store.size(digest) for digest in store.digests())


def test_many_deploys_of_a_changing_image_take_the_room_of_those_that_are_kept(
    app: App, developer: Actor, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 100
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 0, free << 30))
    app.plan.releases_kept = KEPT
    app.plan.save()
    sizes = []
    for number in range(1, DEPLOYS + 1):
        free = 100  # for the upload's own look
        image = asyncio.run(receive_archive(developer, app, archives.chunks(changing(number), 1 << 20)))
        with transaction.atomic():
            make_release(developer, app, image, "")
        make_old(store)
        assert relieve() == 0  # there is room: the hour will come
        free = 24
        relieve()
        sizes.append(stored_bytes(store))
    assert max(sizes) == pytest.approx(sizes[KEPT], rel=0.01)
    assert Release.objects.count() == KEPT
    for image in Image.objects.all():
        assert all(store.has(digest) for digest in image.blobs.values_list("digest", flat=True))
    assert Image.objects.count() == KEPT
