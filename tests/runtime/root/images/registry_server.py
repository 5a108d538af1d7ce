"""A small registry over real HTTP whose answers a test can bend."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tests.corpus import tar

USER, PASSWORD, TOKEN = "deploy", "s3cret", "short-token"
OCI = "application/vnd.oci.image."


class RegistryServer:
    """`content` maps "manifests/<reference>" and "blobs/<digest>" to bytes; `auth` is "", "bearer" or "basic"."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.auth = ""
        self.redirect_blobs_to = ""
        self.cuts = 0  # so many answers with layers end half-way
        self.knows_ranges = True
        self.ranges: list[str] = []
        self.uploads: list[str] = []
        self.requests: list[str] = []
        self.sent_passwords: list[str] = []
        handler = type("Handler", (_Handler,), {"registry": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[RegistryServer]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def add_image(
        self, layers: list[bytes], diff_ids: list[str], *, tag: str = "latest", layer_type: str = "", **changes: Any
    ) -> str:
        """Offer an image; returns its manifest's digest."""
        config = tar.config(diff_ids)
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": tar.descriptor(config, f"{OCI}config.v1+json"),
            "layers": [tar.descriptor(item, layer_type or f"{OCI}layer.v1.tar+gzip") for item in layers],
        } | changes
        for item in (config, *layers):
            self.content[f"blobs/{tar.digest(item)}"] = item
        return self.add_manifest(json.dumps(manifest).encode(), f"{OCI}manifest.v1+json", tag)

    def add_manifest(self, data: bytes, media_type: str, tag: str) -> str:
        """Offer a manifest or index under a tag and its digest."""
        for name in (tag, tar.digest(data)):
            self.content[f"manifests/{name}"] = data
            self.types[f"manifests/{name}"] = media_type
        return tar.digest(data)

    def allowed(self, header: str) -> bool:
        """Whether a request's Authorization suffices."""
        if header:
            self.sent_passwords.append(header)
        if self.auth == "bearer":
            return header == f"Bearer {TOKEN}"
        if self.auth == "basic":
            return header == basic(USER, PASSWORD)
        return True


class _Handler(BaseHTTPRequestHandler):
    """Answers for `registry`."""

    registry: RegistryServer
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has seen enough
            super().handle()

    def do_GET(self) -> None:
        self.registry.requests.append(self.path)
        if self.path.startswith("/token"):
            self._token()
        elif not self.registry.allowed(self.headers.get("Authorization", "")):
            self._challenge()
        elif self.registry.redirect_blobs_to and "/blobs/" in self.path:
            self._answer(307, b"", {"Location": self.registry.redirect_blobs_to + self.path})
        else:
            self._content()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        if not self.registry.allowed(self.headers.get("Authorization", "")):
            self._challenge()
        else:
            self._answer(202, b"", {"Location": f"{self.path}upload?state=1"})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.registry.allowed(self.headers.get("Authorization", "")):
            self._challenge()
            return
        path, _, query = self.path.partition("?")
        if "/manifests/" in path:
            self.registry.add_manifest(data, self.headers["Content-Type"], path.rpartition("/")[2])
        else:
            digest = parse_qs(query)["digest"][0]
            self.registry.uploads.append(digest)
            if tar.digest(data) != digest:
                self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}', {})
                return
            self.registry.content[f"blobs/{digest}"] = data
        self._answer(201, b"", {})

    def _content(self) -> None:
        name = "/".join(self.path.rsplit("/", 2)[1:])
        data = self.registry.content.get(name)
        asked = self.headers.get("Range", "")
        if asked:
            self.registry.ranges.append(asked)
        if self.path == "/v2/":
            self._answer(200, b"{}", {})
        elif data is None:
            self._answer(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', {})
        elif asked and self.registry.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self._answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self._answer(200, data, {"Content-Type": self.registry.types.get(name, "application/octet-stream")})

    def _token(self) -> None:
        good = self.headers.get("Authorization", "") == basic(USER, PASSWORD)
        self._answer(200 if good else 401, json.dumps({"token": TOKEN if good else ""}).encode(), {})

    def _challenge(self) -> None:
        realm = (
            f'Bearer realm="http://{self.registry.address}/token",service="moorage",scope="repository:team/app:pull"'
        )
        value = realm if self.registry.auth == "bearer" else 'Basic realm="moorage"'
        self._answer(401, b"", {"WWW-Authenticate": value})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        cut = self.registry.cuts > 0 and "/blobs/" in self.path and len(data) > 1000
        self.registry.cuts -= cut
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


def basic(user: str, password: str) -> str:
    """The header of Basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
