"""Pushing to a registry over real HTTP: the same digests arrive, what is there is not sent."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from runtime.images.faults import RegistryFault
from runtime.images.records import PullProgress, RegistryAuth
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar
from tests.corpus.good import LAYERS
from tests.runtime.root.images.registry_server import PASSWORD, USER, RegistryServer
from tests.runtime.root.images.test_pull import DIFF_IDS, PACKED, registry

__all__ = ["registry"]
pytestmark = pytest.mark.root


@pytest.mark.parametrize("auth", ["", "basic", "bearer"])
def test_an_image_arrives_with_its_digests(registry: RegistryServer, store: ImageStore, state: Path, auth: str) -> None:
    registry.auth, who = auth, RegistryAuth(username=USER, password=PASSWORD) if auth else None
    name = f"{registry.address}/team/app:v1"
    (loaded,) = store.load(io.BytesIO(tar.docker_archive(LAYERS, tags=[name])))
    steps: list[PullProgress] = []
    pushed = store.push(name, who, steps.append)
    assert pushed.digest == loaded.image.manifest_digest and len(registry.uploads) == 3
    assert {step.status for step in steps} == {"Pushing", "Pushed"}
    assert store.resolve(name).repo_digests == (f"{registry.address}/team/app@{pushed.digest}",)
    other = ImageStore(state / "other", Overlay2(state / "other-store"), architecture="amd64")
    pulled = other.pull(name, who)
    assert (pulled.id, pulled.manifest_digest) == (loaded.image.id, loaded.image.manifest_digest)
    store.push(name, who)
    assert len(registry.uploads) == 3
    other.close()


def test_layers_that_the_registry_has_compressed_are_not_sent(registry: RegistryServer, store: ImageStore) -> None:
    digest = registry.add_image(PACKED[:2], DIFF_IDS[:2], tag="v1")
    name = f"{registry.address}/team/app"
    store.pull(f"{name}:v1")
    store.tag(f"{name}:v1", f"{name}:v2")
    assert store.push(f"{name}:v2").digest == digest and registry.uploads == []
    del registry.content[f"blobs/{tar.digest(PACKED[1])}"]
    store.tag(f"{name}:v1", f"{name}:v3")
    assert store.push(f"{name}:v3").digest != digest
    assert registry.uploads == [DIFF_IDS[1]]
    assert store.pull(f"{name}:v3").diff_ids == tuple(DIFF_IDS[:2])


def test_a_refusal_names_the_registry(registry: RegistryServer, store: ImageStore) -> None:
    registry.auth = "basic"
    name = f"{registry.address}/team/app:v1"
    store.load(io.BytesIO(tar.docker_archive(LAYERS, tags=[name])))
    with pytest.raises(RegistryFault, match=registry.address) as caught:
        store.push(name, RegistryAuth(username=USER, password="wrong"))
    assert caught.value.status == 401 and registry.uploads == []
