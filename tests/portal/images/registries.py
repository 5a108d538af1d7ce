"""What tests of the registry share: the registry served for real, and a client that pushes as the specification says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from portal.hosting.access import get_app
from portal.images.asgi import RegistryApp
from portal.releases.pushed import deploy_pushed
from tests.portal.images.serving import serving

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"


@contextmanager
def registry() -> Iterator[str]:
    """`http://127.0.0.1:<port>` of the registry, wired as the portal does."""
    with serving(RegistryApp(lambda actor, slug: get_app(actor, slug, "deploy"), deploy_pushed)) as url:
        yield url


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def entry(data: bytes, media_type: str) -> dict[str, Any]:
    """A descriptor."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def config_of(*layers: bytes, architecture: str = "amd64", **run: Any) -> bytes:
    """An image's configuration over plain layers."""
    diff_ids = [digest_of(layer) for layer in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(config).encode()


def manifest_of(
    config: bytes, *layers: bytes, config_type: str = CONFIG, layer_type: str = LAYER, **more: Any
) -> bytes:
    """A manifest over blobs."""
    parts = [entry(layer, layer_type) for layer in layers]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI, "config": entry(config, config_type), "layers": parts, **more}
    ).encode()


def index_of(*manifests: Mapping[str, Any], **more: Any) -> bytes:
    """An index over descriptors."""
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests), **more}).encode()


class Pusher:
    """One repository for one person's API token, by Basic."""

    def __init__(self, url: str, token: str, repository: str = "acme/shop") -> None:
        self.http = httpx.Client(base_url=url, auth=("any", token), timeout=30)
        self.base = f"/v2/{repository}"

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        """One request below the repository."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            method, path if path.startswith("/v2") else f"{self.base}{path}", content=content, headers=names
        )

    def begin(self) -> str:
        """An upload's address."""
        answer = self.call("POST", "/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def blob(self, data: bytes) -> str:
        """Push a blob in one request; its digest."""
        answer = self.call("POST", f"/blobs/uploads/?digest={digest_of(data)}", data)
        assert answer.status_code == 201, answer.text
        return digest_of(data)

    def put(self, reference: str, manifest: bytes, kind: str = OCI) -> httpx.Response:
        """Push a manifest."""
        return self.call("PUT", f"/manifests/{reference}", manifest, Content_Type=kind)

    def image(self, reference: str = "1.0", layer: bytes = b"layer", **run: Any) -> tuple[bytes, httpx.Response]:
        """Push a small image whole; its manifest and the answer."""
        config = config_of(layer, **{"Cmd": ["/app"], **run})
        self.blob(layer)
        self.blob(config)
        manifest = manifest_of(config, layer)
        answer = self.put(reference or digest_of(manifest), manifest)
        assert answer.status_code == 201, answer.text
        return manifest, answer


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and the specification's error code."""
    return answer.status_code, answer.json()["errors"][0]["code"]
