"""What the pages and the REST call say of images: what each takes, why it stays, when it goes."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.blobs import Blobs
from portal.images.models import Image
from portal.releases.holdings import holdings, store_use
from portal.releases.models import Release
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.ages import make_old

pytestmark = pytest.mark.django_db(transaction=True)


def received(developer: Actor, app: App, archive: bytes) -> Image:
    return asyncio.run(receive_archive(developer, app, archives.chunks(archive, 1 << 20)))


def test_the_pages_say_what_goes_and_why_what_stays_stays(
    app: App, developer: Actor, store: Blobs, owner: Client, people: People
) -> None:
    kept = received(developer, app, archives.demo())
    unused = received(developer, app, archives.demo(size_mb=1))
    Release.objects.create(app=app, number=1, image=kept, environment_encrypted=b"")
    Image.objects.filter(pk=unused.pk).update(created_at=timezone.now() - dt.timedelta(days=5))
    found = holdings(people.team)
    by_image = {holding.image.pk: holding for holding in found.images}
    assert by_image[kept.pk].why == "Release 1 of shop can be rolled back to; plan nano keeps 20."
    assert by_image[kept.pk].goes_at is None
    assert "goes in 2 days" in by_image[unused.pk].why
    assert 1 << 20 < by_image[unused.pk].own_bytes < unused.size_bytes  # the layer below is the other's too
    assert found.going_bytes == by_image[unused.pk].own_bytes
    page = owner.get("/teams/acme/images").content.decode()
    assert "can be rolled back to" in page and "goes in 2 days" in page
    answer = owner.get("/api/v1/teams/acme/images").json()
    assert [row["goes_at"] is None for row in answer["items"]] == [False, True]
    assert owner.get("/teams/strangers/images").status_code == 404
    assert owner.get("/operator/storage").status_code == 403
    own_bytes = by_image[unused.pk].own_bytes
    unused.delete()
    assert store_use().unneeded_bytes == own_bytes
    operator = people.client(people.operator)
    make_old(store)
    said = operator.post("/operator/storage", follow=True).content.decode()
    assert "3 blobs went" in said
