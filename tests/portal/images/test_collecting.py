"""Collection beside whoever brings or deploys the same image in the same moment, in threads of their own; on both databases."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Iterable

import pytest
from django.db import connection, transaction
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.errors import Conflict
from portal.hosting.models import App
from portal.images import actions
from portal.images.actions import receive_archive
from portal.images.blobs import Blobs
from portal.images.collect import collect, drop_unused_images
from portal.images.models import Blob, Image
from portal.releases.making import make_release
from portal.releases.models import Release
from portal.releases.settle import forget_old_releases
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.ages import make_old

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 12


@pytest.fixture
def store(either: Blobs) -> Blobs:
    """Each test with both kinds of store."""
    return either


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each returned or raised, all begun together."""
    barrier, results = threading.Barrier(len(acts)), [object()] * len(acts)

    def run(place: int, act: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[place] = act()
        except Exception as error:  # noqa: BLE001  # looked at by the test
            results[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def received(developer: Actor, app: App, archive: bytes) -> Image:
    return asyncio.run(receive_archive(developer, app, archives.chunks(archive, 1 << 20)))


def is_whole(image: Image, store: Blobs) -> bool:
    """Rows and files of everything the image needs are there."""
    wanted = {image.digest, *(layer["digest"] for layer in image.config["layers"])}
    rows = set(image.blobs.values_list("digest", flat=True))
    return wanted < rows and len(rows) == len(wanted) + 1 and all(store.has(digest) for digest in rows)


def test_an_image_that_comes_while_its_blobs_are_collected_is_whole(app: App, developer: Actor, store: Blobs) -> None:
    data = archives.demo()
    for _ in range(ROUNDS):
        received(developer, app, data).delete()
        make_old(store)
        results = at_once(collect, lambda: received(developer, app, data), collect)
        image = results[1]
        assert isinstance(image, Image), results
        collect()
        assert is_whole(image, store), results
        image.delete()


def test_a_row_that_a_collection_takes_in_this_moment_is_written_again(
    app: App, developer: Actor, store: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = actions.lock_blobs, list[str]()

    def lock_after_a_collection(digests: Iterable[str]) -> list[int]:
        if not taken:
            taken.append(min(digests))
            Blob.objects.filter(digest=taken[0]).delete()
        return lock(digests)

    monkeypatch.setattr(actions, "lock_blobs", lock_after_a_collection)
    image = received(developer, app, archives.demo())
    assert taken and is_whole(image, store)


def test_an_image_is_deployed_or_forgotten_but_never_half(app: App, developer: Actor, store: Blobs) -> None:
    deployed = 0
    for round_number in range(ROUNDS):
        image = received(developer, app, archives.demo())
        Image.objects.update(created_at=timezone.now() - dt.timedelta(days=8))

        def deploy(image: Image = image) -> Release:
            with transaction.atomic():
                return make_release(developer, App.objects.get(pk=app.pk), image, "")

        acts = (drop_unused_images, deploy) if round_number % 2 else (deploy, drop_unused_images)
        results = at_once(*acts)
        release = next((result for result in results if isinstance(result, Release)), None)
        if release is None:
            assert any(isinstance(result, Conflict) for result in results), results
            assert not Image.objects.filter(pk=image.pk).exists()
        else:
            deployed += 1
            make_old(store)
            collect()
            assert is_whole(Image.objects.get(pk=image.pk), store)
            Release.objects.all().delete()
        Image.objects.all().delete()
    assert 0 <= deployed <= ROUNDS


def test_what_the_rollback_set_needs_stays_whatever_its_age(
    app: App, developer: Actor, store: Blobs, people: People
) -> None:
    images = [
        received(developer, app, archives.demo(size_mb=1, tag=f"shop:{n}", architecture="amd64")) for n in range(1)
    ]
    images += [received(developer, app, archives.demo(crash=True))]
    for number, image in enumerate(images, 1):
        Release.objects.create(app=app, number=number, image=image, environment_encrypted=b"")
    Image.objects.update(created_at=timezone.now() - dt.timedelta(days=400))
    make_old(store)
    collect()
    assert all(is_whole(image, store) for image in images)
    app.plan.releases_kept = 1
    app.plan.save()
    assert forget_old_releases(app) == 1
    collect()
    assert list(Image.objects.all()) == [images[1]]
    assert is_whole(images[1], store)
    assert set(store.digests()) == set(Blob.objects.values_list("digest", flat=True))
