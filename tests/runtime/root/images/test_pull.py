"""Pulling from a registry over real HTTP: what is here is not fetched, what lies is refused, passwords go nowhere else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from backports import zstd

from runtime.errors import RuntimeFault
from runtime.images.faults import NoSuchImage, RegistryFault
from runtime.images.format import ImageFault
from runtime.images.records import PullProgress, RegistryAuth
from runtime.images.registry import RegistryPolicy
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar
from tests.runtime.root.images.registry_server import OCI, PASSWORD, TOKEN, USER, RegistryServer

pytestmark = pytest.mark.root

LAYERS = [tar.layer(tar.entry(f"file{number}", b"x" * 3_000_000)) for number in range(4)]
DIFF_IDS = [tar.digest(item) for item in LAYERS]
PACKED = [gzip.compress(item, 1) for item in LAYERS]


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer().running() as server:
        yield server


def pulled_blobs(registry: RegistryServer) -> list[str]:
    return [path for path in registry.requests if "/blobs/" in path]


def test_a_tag_is_pulled_with_its_layers(registry: RegistryServer, store: ImageStore, driver: Overlay2) -> None:
    digest = registry.add_image(PACKED, DIFF_IDS, tag="v1")
    steps: list[PullProgress] = []
    image = store.pull(f"{registry.address}/team/app:v1", progress=steps.append)
    assert image.repo_tags == (f"{registry.address}/team/app:v1",)
    assert image.repo_digests == (f"{registry.address}/team/app@{digest}",)
    assert image.manifest_digest == digest and image.diff_ids == tuple(DIFF_IDS)
    assert image.size_bytes == 12_000_000
    for number, chain_id in enumerate(image.chain_ids):
        layer = driver.layer(chain_id)
        assert layer is not None and (layer.path / f"file{number}").stat().st_size == 3_000_000
    assert {step.status for step in steps} >= {"Downloading", "Pull complete"}
    assert store.resolve(f"{registry.address}/team/app@{digest}").id == image.id


def test_layers_that_are_here_are_not_fetched_again(registry: RegistryServer, store: ImageStore) -> None:
    registry.add_image(PACKED[:3], DIFF_IDS[:3])
    store.pull(f"{registry.address}/team/app")
    registry.requests.clear()
    registry.add_image([*PACKED[:2], zstd.compress(LAYERS[3])], [*DIFF_IDS[:2], DIFF_IDS[3]], tag="next")
    store.pull(f"{registry.address}/team/app:next")
    assert len(pulled_blobs(registry)) == 2  # the config and one layer
    registry.requests.clear()
    store.pull(f"{registry.address}/team/app:next")
    assert len(pulled_blobs(registry)) == 1


def test_pulls_of_one_image_at_the_same_time_fetch_each_layer_once(registry: RegistryServer, store: ImageStore) -> None:
    registry.add_image(PACKED, DIFF_IDS)
    start = threading.Barrier(3)

    def pull() -> str:
        start.wait()
        return store.pull(f"{registry.address}/team/app").id

    with ThreadPoolExecutor(3) as pool:
        assert len({future.result() for future in [pool.submit(pull) for _ in range(3)]}) == 1
    assert len([path for path in pulled_blobs(registry) if tar.digest(PACKED[0]) in path]) == 1


def test_the_platform_is_chosen_from_an_index(registry: RegistryServer, store: ImageStore) -> None:
    digest = registry.add_image(PACKED[:1], DIFF_IDS[:1], tag="amd64")
    data = registry.content["manifests/amd64"]
    entries = [
        {**tar.descriptor(b"arm", f"{OCI}manifest.v1+json"), "platform": {"os": "linux", "architecture": "arm64"}},
        {**tar.descriptor(data, f"{OCI}manifest.v1+json"), "platform": {"os": "linux", "architecture": "amd64"}},
        {**tar.descriptor(b"sbom", f"{OCI}manifest.v1+json"), "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    top = registry.add_manifest(index, f"{OCI}index.v1+json", "latest")
    image = store.pull(f"{registry.address}/team/app")
    assert image.manifest_digest == digest
    assert image.repo_digests == (f"{registry.address}/team/app@{top}",)


@pytest.mark.parametrize(
    ("kind", "auth"),
    [
        ("bearer", RegistryAuth(token=TOKEN)),
        ("bearer", RegistryAuth(username=USER, password=PASSWORD)),
        ("basic", RegistryAuth(username=USER, password=PASSWORD)),
    ],
    ids=["ready token", "token endpoint", "basic"],
)
def test_signing_in(registry: RegistryServer, store: ImageStore, kind: str, auth: RegistryAuth) -> None:
    registry.add_image(PACKED, DIFF_IDS)
    registry.auth = kind
    assert store.pull(f"{registry.address}/team/app", auth).diff_ids == tuple(DIFF_IDS)


@pytest.mark.parametrize("auth", [None, RegistryAuth(token="old"), RegistryAuth(username=USER, password="wrong")])
def test_a_wrong_sign_in_is_said(
    registry: RegistryServer, store: ImageStore, auth: RegistryAuth | None, unchanged: Callable[[], None]
) -> None:
    registry.add_image(PACKED, DIFF_IDS)
    registry.auth = "bearer"
    with pytest.raises(RegistryFault) as caught:
        store.pull(f"{registry.address}/team/app", auth)
    assert caught.value.status == 401
    unchanged()


def test_a_password_does_not_follow_a_redirect_elsewhere(registry: RegistryServer, store: ImageStore) -> None:
    registry.add_image(PACKED[:1], DIFF_IDS[:1])
    registry.auth = "bearer"
    with RegistryServer().running() as other:
        other.content = registry.content
        registry.redirect_blobs_to = f"http://{other.address}"
        store.pull(f"{registry.address}/team/app", RegistryAuth(token=TOKEN))
        assert len(pulled_blobs(other)) == 2 and other.sent_passwords == []


def test_plain_http_leaves_this_machine_only_when_told(store: ImageStore, registry: RegistryServer) -> None:
    registry.add_image(PACKED[:1], DIFF_IDS[:1])
    registry.redirect_blobs_to = "http://192.0.2.1:5000"
    with pytest.raises(RegistryFault, match="not encrypted"):
        store.pull(f"{registry.address}/team/app")


def test_what_the_registry_lacks_is_no_such_image(store: ImageStore, registry: RegistryServer) -> None:
    with pytest.raises(NoSuchImage, match="team/app/manifests/none"):
        store.pull(f"{registry.address}/team/app:none")


def test_a_registry_that_does_not_answer_is_named(store: ImageStore) -> None:
    with pytest.raises(RegistryFault, match=r"127\.0\.0\.1:1 does not answer"):
        store.pull("127.0.0.1:1/team/app")


def _wrong_bytes(registry: RegistryServer) -> None:
    registry.content[f"blobs/{tar.digest(PACKED[1])}"] = PACKED[2][: len(PACKED[1])].ljust(len(PACKED[1]), b"\0")


def _longer(registry: RegistryServer) -> None:
    registry.content[f"blobs/{tar.digest(PACKED[1])}"] += b"more"


def _shorter(registry: RegistryServer) -> None:
    registry.content[f"blobs/{tar.digest(PACKED[1])}"] = PACKED[1][:-1]


def _wrong_config(registry: RegistryServer) -> None:
    config = next(name for name, data in registry.content.items() if b"diff_ids" in data)
    registry.content[config] = registry.content[config].replace(b"true", b"evil")


def _enormous_manifest(registry: RegistryServer) -> None:
    registry.content["manifests/latest"] = b" " * 5_000_000


def _gone(registry: RegistryServer) -> None:
    del registry.content[f"blobs/{tar.digest(PACKED[3])}"]


@pytest.mark.parametrize("bend", [_wrong_bytes, _longer, _shorter, _wrong_config, _enormous_manifest, _gone])
def test_a_lying_registry_is_refused_and_leaves_nothing(
    registry: RegistryServer, store: ImageStore, bend: Callable[[RegistryServer], None], unchanged: Callable[[], None]
) -> None:
    registry.add_image(PACKED, DIFF_IDS)
    bend(registry)
    with pytest.raises(RuntimeFault):
        store.pull(f"{registry.address}/team/app")
    assert store.list() == []
    unchanged()


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_pull_goes_on_where_the_connection_broke(
    registry: RegistryServer, store: ImageStore, knows_ranges: bool
) -> None:
    registry.add_image(PACKED[:1], DIFF_IDS[:1])
    registry.cuts, registry.knows_ranges = 2, knows_ranges
    assert store.pull(f"{registry.address}/team/app").diff_ids == tuple(DIFF_IDS[:1])
    half = len(PACKED[0]) // 2
    again = half + (len(PACKED[0]) - half) // 2 if knows_ranges else half
    assert registry.ranges == [f"bytes={half}-", f"bytes={again}-"][: len(registry.ranges)]
    assert len(registry.ranges) == 2


def test_a_connection_that_breaks_each_time_is_said(
    registry: RegistryServer, store: ImageStore, unchanged: Callable[[], None]
) -> None:
    digest = registry.add_image(PACKED, DIFF_IDS)
    registry.cuts, registry.knows_ranges = 10**6, False
    with pytest.raises(RegistryFault, match=r"ends \d+ bytes early"):
        store.pull(f"{registry.address}/team/app@{digest}")
    unchanged()


def test_only_registries_that_were_allowed_are_asked() -> None:
    policy = RegistryPolicy(allowed=frozenset({"good.example:5000"}), insecure=frozenset({"plain.example"}))
    for domain in ("127.0.0.1:5000", "localhost", "portal.localhost:8080", "good.example:5000", "plain.example"):
        policy.check(domain)
    for domain in ("good.example", "docker.io", "127.0.0.1.example", "*"):
        with pytest.raises(RegistryFault, match="--registry") as caught:
            policy.check(domain)
        assert caught.value.status == 403
    RegistryPolicy(allowed=frozenset({"*"})).check("docker.io")


def test_a_strange_registry_is_not_even_looked_up(store: ImageStore) -> None:
    with pytest.raises(RegistryFault, match=r"does not talk to the registry docker\.io"):
        store.pull("alpine")
    with pytest.raises(RegistryFault, match="does not talk to"):
        store.sign_in("registry.example", RegistryAuth(username="a", password="b"))


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_a_sign_in_is_tried_at_the_registry(registry: RegistryServer, store: ImageStore, kind: str) -> None:
    registry.auth = kind
    store.sign_in(registry.address, RegistryAuth(username=USER, password=PASSWORD))
    with pytest.raises(RegistryFault, match="sign-in") as caught:
        store.sign_in(registry.address, RegistryAuth(username=USER, password="wrong"))
    assert caught.value.status == 401


def test_a_layer_that_unpacks_to_another_is_refused(
    registry: RegistryServer, store: ImageStore, unchanged: Callable[[], None]
) -> None:
    registry.add_image(PACKED[:2], [DIFF_IDS[0], DIFF_IDS[3]])
    with pytest.raises(ImageFault, match="config says"):
        store.pull(f"{registry.address}/team/app")
    unchanged()


def test_an_image_that_is_here_by_digest_needs_no_registry(store: ImageStore) -> None:
    with RegistryServer().running() as registry:
        digest = registry.add_image(PACKED[:1], DIFF_IDS[:1])
        first = store.pull(f"{registry.address}/team/app@{digest}")
        assert first.repo_tags == ()
    assert store.pull(f"{registry.address}/team/app@{digest}") == first
