"""What a team has already is not sent again, and nobody learns or takes what other teams have."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import tarfile
from collections.abc import Iterator

import httpx
import pytest
from django.utils import timezone

from portal.accounts.models import Team
from portal.hosting.access import get_app
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.asgi import UploadsApp
from portal.images.blobs import Blobs
from portal.images.collect import collect
from portal.images.faults import ImageRefused
from portal.images.models import BlobClaim, Image, Upload
from portal.images.quota import used_bytes
from portal.images.store import uploads_dir
from scripts.demo_image import Contents, ballast_layer, build
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.ages import make_old
from tests.portal.images.serving import serving
from tests.portal.images.test_uploading_in_chunks import begin, patch

pytestmark = pytest.mark.django_db(transaction=True)

KNOWN = "/api/v1/uploads/known"
NOBODYS = f"sha256:{'0' * 64}"


@pytest.fixture
def store(either: Blobs) -> Blobs:
    """Each test with both kinds of store."""
    return either


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The uploads door on a port."""
    with serving(UploadsApp(lambda actor, slug: get_app(actor, slug, "deploy"))) as made:
        yield made


@pytest.fixture
def http(url: str, people: People, app: App, store: Blobs) -> Iterator[httpx.Client]:
    """A client with the developer's token."""
    with client(url, people.token(people.developer, "deploy")) as made:
        yield made
    Upload.objects.all().delete()
    for file in uploads_dir().iterdir():
        file.unlink()


def client(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"})


def ask(http: httpx.Client, digests: list[str], app: str = "shop") -> httpx.Response:
    return http.post(KNOWN, json={"app": app, "digests": digests})


def known(http: httpx.Client, digests: list[str], app: str = "shop") -> set[str]:
    answer = ask(http, digests, app)
    assert answer.status_code == 200, answer.text
    return {row["digest"] for row in answer.json()["known"]}


def received(actor: object, app: App, archive: bytes) -> Image:
    return asyncio.run(receive_archive(actor, app, archives.chunks(archive)))  # type: ignore[arg-type]


def layers_of(image: Image) -> list[str]:
    return [layer["digest"] for layer in image.config["layers"]]


def changed(seed: int) -> bytes:
    """An image of 3 MB below and a layer on top that is another with each seed."""
    buffer = io.BytesIO()
    build(buffer, Contents(size_mb=3, layer=ballast_layer(1, seed)), tag=f"shop:{seed}")
    return buffer.getvalue()


def without_blobs(archive: bytes, digests: set[str]) -> bytes:
    return archives.without(archive, {f"blobs/{digest.replace(':', '/')}" for digest in digests})


def test_an_archive_without_the_layers_the_team_has_becomes_the_same_image(
    http: httpx.Client, app: App, developer: object, store: Blobs
) -> None:
    first = received(developer, app, changed(1))
    second = changed(2)
    here = known(http, [*layers_of(first), NOBODYS])
    assert here == set(layers_of(first))
    part = without_blobs(second, here)
    assert len(part) < len(second) / 2
    address = begin(http, len(part)).headers["Location"]
    answer = patch(http, address, 0, part)
    assert answer.status_code == 204, answer.text
    image = Image.objects.get(pk=answer.headers["Moorage-Image"])
    assert set(layers_of(image)) >= set(layers_of(first)[:2])
    image.delete()
    assert received(developer, app, second).digest == answer.headers["Moorage-Image-Digest"]


def test_an_old_archive_leaves_a_link_in_the_place_of_a_layer(app: App, developer: object, store: Blobs) -> None:
    whole = received(developer, app, changed(1))
    archive = archives.old_style(changed(1))
    config = json.loads(next(data for name, data in archives.members(archive).items() if name.endswith(".json")))
    links = []
    for number, digest in enumerate(config["rootfs"]["diff_ids"]):
        links.append(archives.special(tarfile.SYMTYPE, f"layer{number}/layer.tar"))
        links[-1].linkname = f"../blobs/{digest.replace(':', '/')}"
    kept = {name: data for name, data in archives.members(archive).items() if not name.endswith("layer.tar")}
    image = received(developer, app, archives.packed(kept, *links))
    assert layers_of(image) == layers_of(whole)


def test_what_another_team_has_is_neither_told_nor_given(
    http: httpx.Client, url: str, people: People, app: App, developer: object, store: Blobs
) -> None:
    archive = changed(1)
    image = received(developer, app, archive)
    theirs = App.objects.create(team=Team.objects.get(slug="strangers"), slug="theirs", plan=app.plan)
    with client(url, people.token(people.stranger, "deploy")) as stranger:
        assert known(stranger, layers_of(image), "theirs") == set()
        assert ask(stranger, layers_of(image)).status_code == 404
    from portal.accounts.actor import Actor

    taking = without_blobs(archive, set(layers_of(image)))
    with pytest.raises(ImageRefused, match="the archive does not have"):
        received(Actor(user=people.stranger, door="api"), theirs, taking)
    assert not BlobClaim.objects.filter(team=theirs.team).exists()


def test_a_token_of_one_app_relies_on_that_apps_layers_alone(
    url: str, people: People, app: App, developer: object, store: Blobs
) -> None:
    image = received(developer, app, changed(1))
    App.objects.create(team=app.team, slug="other", plan=app.plan)
    with client(url, people.token(people.developer, "deploy", app="other")) as other:
        assert known(other, layers_of(image), "other") == set()
        assert ask(other, layers_of(image)).status_code == 404
    with client(url, people.token(people.developer, "deploy", app="shop")) as own:
        assert known(own, layers_of(image)) == set(layers_of(image))


def test_who_may_not_deploy_is_told_nothing(url: str, people: People, app: App) -> None:
    with client(url, people.token(people.viewer, "read")) as viewer:
        assert ask(viewer, [NOBODYS]).status_code == 403
    assert httpx.post(f"{url}{KNOWN}", json={"app": "shop", "digests": []}).status_code == 401


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"app": "shop", "digests": ["md5:00"]}, 422),
        ({"app": "shop", "digests": [f"sha256:{number:064x}" for number in range(1001)]}, 422),
        ({"app": "shop"}, 422),
        ({"digests": []}, 422),
        ([], 422),
    ],
)
def test_a_question_that_is_none_is_refused(http: httpx.Client, question: object, status: int) -> None:
    answer = http.post(KNOWN, json=question)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_was_promised_stays_for_the_upload_and_counts_as_the_teams(
    http: httpx.Client, app: App, developer: object, store: Blobs
) -> None:
    archive = changed(1)
    image = received(developer, app, archive)
    here = known(http, layers_of(image))
    image.delete()
    make_old(store)
    assert collect().blobs == 2  # config and manifest
    assert set(store.digests()) == here
    assert used_bytes(app.team) == sum(store.size(digest) for digest in here)
    assert received(developer, app, without_blobs(archive, here)).digest == image.digest


def test_a_promise_ends_after_a_day(http: httpx.Client, app: App, developer: object, store: Blobs) -> None:
    image = received(developer, app, changed(1))
    known(http, layers_of(image))
    image.delete()
    BlobClaim.objects.update(until=timezone.now() - dt.timedelta(seconds=1))
    make_old(store)
    assert collect().blobs == 5
    assert list(store.digests()) == []
    with pytest.raises(ImageRefused):
        received(developer, app, without_blobs(changed(1), set(layers_of(image))))
