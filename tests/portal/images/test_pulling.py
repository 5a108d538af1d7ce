"""The registry, pulled by skopeo as any client would."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.actions import receive_archive
from portal.images.blobs import BlobStore
from portal.images.models import Image
from portal.images.tokens import make_pull_token
from runtime.errors import RuntimeFault
from runtime.images.format import Manifest, parse_manifest
from runtime.images.records import RegistryAuth
from runtime.images.registry import Registry
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.registries import registry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def image(app: App, developer: Actor, store: BlobStore) -> Image:
    """An image of two layers in acme/shop."""
    return asyncio.run(receive_archive(developer, app, archives.chunks(archives.demo(size_mb=2))))


def skopeo(url: str, source: str, target: Path, credentials: str = "") -> subprocess.CompletedProcess[str]:
    sign_in = [f"--src-creds={credentials}"] if credentials else ["--src-no-creds"]
    address = f"docker://{url.removeprefix('http://')}/{source}"
    command = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", *sign_in, address, f"dir:{target}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("reference", ["digest", ":latest", ":1.0"])
def test_skopeo_pulls_by_digest_and_tag(
    reference: str, url: str, image: Image, people: People, tmp_path: Path, store: BlobStore
) -> None:
    name = f"acme/shop@{image.digest}" if reference == "digest" else f"acme/shop{reference}"
    done = skopeo(url, name, tmp_path / "got", f"any:{people.token(people.viewer, 'read')}")
    assert done.returncode == 0, done.stderr
    manifest = (tmp_path / "got" / "manifest.json").read_bytes()
    assert manifest == store.read(image.digest)
    for layer in json.loads(manifest)["layers"]:
        assert (tmp_path / "got" / layer["digest"].removeprefix("sha256:")).stat().st_size == layer["size"]


def test_skopeo_is_refused_without_the_right(url: str, image: Image, people: People, tmp_path: Path) -> None:
    name = f"acme/shop@{image.digest}"
    other_app = people.token(people.developer, "read", app="other")
    for credentials in ("", "any:moor_wrong", f"any:{people.token(people.stranger, 'write')}", f"any:{other_app}"):
        done = skopeo(url, name, tmp_path / "got", credentials)
        assert done.returncode != 0
        assert any(word in done.stderr for word in ("unauthorized", "denied")), done.stderr
        assert not (tmp_path / "got" / "manifest.json").exists()


def test_a_pull_token_opens_one_repository_until_it_ends(url: str, image: Image) -> None:
    with httpx.Client(base_url=f"{url}/v2") as http:

        def status(token: str, repository: str = "acme/shop") -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return http.get(f"/{repository}/manifests/{image.digest}", headers=headers).status_code

        assert status(make_pull_token("acme/shop")) == 200
        assert status(make_pull_token("acme/other")) == 401
        assert status(make_pull_token("acme/other"), "acme/other") == 404
        assert status(make_pull_token("acme/shop", lifetime_s=-1)) == 401
        assert status(make_pull_token("acme/shop")[:-2] + "zz") == 401


def test_errors_are_those_of_the_specification(url: str, image: Image) -> None:
    headers = {"Authorization": f"Bearer {make_pull_token('acme/shop')}"}
    with httpx.Client(base_url=f"{url}/v2", headers=headers) as http:

        def code(method: str, path: str) -> tuple[int, str]:
            answer = http.request(method, path)
            return answer.status_code, answer.json()["errors"][0]["code"]

        assert code("GET", "/acme/shop/manifests/nothing") == (404, "MANIFEST_UNKNOWN")
        assert code("GET", f"/acme/shop/blobs/sha256:{'0' * 64}") == (404, "BLOB_UNKNOWN")
        assert code("POST", "/acme/shop/blobs/sha256:1") == (401, "UNAUTHORIZED")  # a host pulls
        assert code("GET", "/acme/shop/blobs/md5:1") == (400, "DIGEST_INVALID")
        assert code("GET", "/acme") == (404, "NAME_INVALID")
        assert http.get("/acme/shop/tags/list").json() == {"name": "acme/shop", "tags": ["1.0", "latest"]}
    challenge = httpx.get(f"{url}/v2/").headers["WWW-Authenticate"]
    assert challenge == f'Bearer realm="{url}/v2/token",service="moorage"'


def test_blobs_are_given_in_ranges(url: str, image: Image, store: BlobStore) -> None:
    headers = {"Authorization": f"Bearer {make_pull_token('acme/shop')}"}
    layer = max((layer for layer in image.config["layers"]), key=lambda layer: layer["size_bytes"])
    whole, size = store.read(layer["digest"]), layer["size_bytes"]
    with httpx.Client(base_url=f"{url}/v2/acme/shop/blobs", headers=headers) as http:

        def part(wanted: str) -> httpx.Response:
            return http.get(f"/{layer['digest']}", headers={"Range": wanted})

        assert http.head(f"/{layer['digest']}").headers["Content-Length"] == str(size)
        assert http.get(f"/{layer['digest']}").content == whole
        middle = part("bytes=1000-1999")
        assert (middle.status_code, middle.content) == (206, whole[1000:2000])
        assert middle.headers["Content-Range"] == f"bytes 1000-1999/{size}"
        assert part(f"bytes={size - 5}-").content == whole[-5:]
        assert part("bytes=-7").content == whole[-7:]
        assert part(f"bytes={size}-").status_code == 416
        assert part("bytes=5-2").status_code == 416


def test_the_engine_pulls_with_the_short_token_alone(url: str, image: Image) -> None:
    auth = RegistryAuth(token=make_pull_token("acme/shop"))
    registry = Registry(url.removeprefix("http://"), "acme/shop", auth)
    manifest = parse_manifest(*registry.manifest(image.digest))
    assert isinstance(manifest, Manifest)
    assert [sum(map(len, registry.blob(layer))) for layer in manifest.layers] == [la.size for la in manifest.layers]
    ended = Registry(
        url.removeprefix("http://"), "acme/shop", RegistryAuth(token=make_pull_token("acme/shop", lifetime_s=-1))
    )
    with pytest.raises(RuntimeFault, match="token"):
        ended.manifest(image.digest)


def test_a_blob_of_another_repository_is_not_shown(
    url: str, image: Image, people: People, plans: dict[str, object], store: BlobStore
) -> None:
    blob = image.config["layers"][0]["digest"]
    headers = {"Authorization": f"Bearer {make_pull_token('strangers/app')}"}
    assert httpx.get(f"{url}/v2/strangers/app/blobs/{blob}", headers=headers).status_code == 404
