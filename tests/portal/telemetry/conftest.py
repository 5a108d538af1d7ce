"""An app with instances, and the whole portal on a port."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.portal.images.serving import serving

if TYPE_CHECKING:
    from portal.fleet.models import Host
    from portal.hosting.models import App
    from portal.plans.models import Plan
    from portal.releases.models import Release
    from tests.conftest import People

HOST_TOKEN = "host-secret"


@pytest.fixture(scope="module")
def site(valkey: str) -> Iterator[str]:
    """The portal as it is in production: Django, websockets, REST."""
    from portal.asgi import application

    with serving(application) as url:
        yield url


@pytest.fixture
def redis(valkey: str) -> Iterator[Redis]:
    """The platform's Redis, empty."""
    with Redis.from_url(valkey) as client:
        client.flushdb()
        yield client


@pytest.fixture
def host(db: None) -> Host:
    """The machine the instances are on."""
    from portal.fleet.models import Host

    return Host.objects.create(name="local", token_digest=hashlib.sha256(HOST_TOKEN.encode()).hexdigest())


@pytest.fixture
def shop(people: People, plans: dict[str, Plan], redis: Redis) -> App:
    """`shop` of team acme."""
    from portal.hosting.models import App

    return App.objects.create(team=people.team, slug="shop", plan=plans["small"])


@pytest.fixture
def release(shop: App) -> Release:
    """Release 1 of shop."""
    from portal.images.models import Image
    from portal.releases.models import Release

    digest = f"sha256:{'1' * 64}"
    image = Image.objects.create(
        team=shop.team, repository="acme/shop", digest=digest, media_type="application/json", size_bytes=1
    )
    return Release.objects.create(app=shop, number=1, image=image, environment_encrypted=b"")


@pytest.fixture
def instances(shop: App, release: Release, host: Host) -> list[str]:
    """`shop-1` and `shop-2`, which are web.1 and web.2."""
    from portal.releases.models import Instance

    rows = [
        Instance(id=f"shop-{n}", app=shop, release=release, host=host, process="web", ordinal=n, observed="healthy")
        for n in (1, 2)
    ]
    return [row.pk for row in Instance.objects.bulk_create(rows)]
