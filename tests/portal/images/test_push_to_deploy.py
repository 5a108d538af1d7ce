"""A pushed tag that an app follows starts a deployment, which the push's answer names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portal.hosting.actions import update_app
from portal.hosting.models import App
from portal.images.blobs import BlobStore
from portal.releases.models import Deployment
from tests.conftest import People
from tests.portal.host import HostDriver
from tests.portal.images.registries import INDEX, OCI, Pusher, entry, index_of, registry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def pusher(url: str, people: People, app: App, store: BlobStore, host: HostDriver) -> Iterator[Pusher]:
    """The developer's client for acme/shop."""
    app.processes.create(name="web")
    with Pusher(url, people.token(people.developer, "deploy")) as client:
        yield client


def follow(app: App, people: People, tag: str = "latest") -> None:
    from portal.accounts.actor import Actor

    update_app(Actor(user=people.owner, door="api"), app, deploy_on_push=True, follow_tag=tag)


def test_nothing_is_deployed_until_it_is_switched_on(pusher: Pusher) -> None:
    _, answer = pusher.image("latest")
    assert "moorage-deployment" not in answer.headers
    assert Deployment.objects.count() == 0


def test_the_followed_tag_deploys_and_others_do_not(pusher: Pusher, app: App, people: People) -> None:
    follow(app, people, "stable")
    assert "moorage-deployment" not in pusher.image("1.0", b"one")[1].headers
    _, answer = pusher.image("stable", b"one")
    assert answer.headers["moorage-deployment"] == "/api/v1/apps/shop/deployments/1"
    deployment = Deployment.objects.select_related("release__image").get()
    assert deployment.created_by == people.developer
    assert (deployment.release.note, deployment.release.image.reference) == ("pushed as stable", "shop:stable")


def test_a_repeated_push_deploys_once_and_a_new_image_again(pusher: Pusher, app: App, people: People) -> None:
    follow(app, people)
    manifest, _ = pusher.image("latest", b"one")
    again = pusher.put("latest", manifest)
    assert again.headers["moorage-deployment"] == "/api/v1/apps/shop/deployments/1"
    assert pusher.image("latest", b"two")[1].headers["moorage-deployment"].endswith("/2")
    assert pusher.put("latest", manifest).headers["moorage-deployment"].endswith("/3")  # the tag moved back
    Deployment.objects.update(state="failed")
    assert pusher.put("latest", manifest).headers["moorage-deployment"].endswith("/4")


def test_an_index_deploys_the_image_that_runs_here(pusher: Pusher, app: App, people: People) -> None:
    follow(app, people)
    manifest, _ = pusher.image("", b"mine")
    platform = {"platform": {"os": "linux", "architecture": "amd64"}}
    answer = pusher.put("latest", index_of(entry(manifest, OCI) | platform), INDEX)
    assert answer.status_code == 201
    assert Deployment.objects.get().release.image.kind == "image"


def test_what_cannot_run_is_kept_and_the_answer_says_why_it_was_not_deployed(
    pusher: Pusher, app: App, people: People
) -> None:
    follow(app, people)
    _, answer = pusher.image("latest", architecture="arm64")
    assert answer.headers["warning"].startswith('299 - "shop was not deployed: It is for linux/arm64')
    assert Deployment.objects.count() == 0
    assert pusher.call("HEAD", "/manifests/latest").status_code == 200
