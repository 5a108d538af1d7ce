"""The writing half of the OCI distribution protocol 1.1 (spec.md, "Pushing"): whole blobs by POST and PUT, then the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from runtime.images.faults import NoSuchImage, RegistryFault
from runtime.images.format import Descriptor, Manifest
from runtime.images.registry import Registry

_MAX_ANSWER_BYTES: Final = 1 << 20


class WritableRegistry(Registry):
    """A registry that an image is pushed to. Thread-safe, as `Registry` is."""

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        try:
            with self._get(f"{self._base}/blobs/{digest}", method="HEAD"):
                return True
        except NoSuchImage:
            return False

    def upload(self, descriptor: Descriptor, data: Iterator[bytes]) -> None:
        """Send a blob; the registry checks its digest. Raises RegistryFault."""
        with self._get(f"{self._base}/blobs/uploads/", method="POST", more={"Content-Length": "0"}) as response:
            place = urljoin(f"{self._base}/blobs/uploads/", response.headers.get("Location", ""))
            self._read(response, _MAX_ANSWER_BYTES, "The registry's answer")
        more = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        mark = "&" if urlsplit(place).query else "?"
        self._put(f"{place}{mark}{urlencode({'digest': descriptor.digest})}", more, data)

    def put_manifest(self, manifest: Manifest, tag: str) -> None:
        """Send a manifest under a tag; raises RegistryFault."""
        more = {"Content-Type": manifest.media_type, "Content-Length": str(len(manifest.data))}
        self._put(f"{self._base}/manifests/{tag}", more, iter([manifest.data]))

    def _put(self, url: str, more: dict[str, str], data: Iterator[bytes]) -> None:
        """A request with a body is sent once: the sign-in has happened before it, and a password goes only to the registry itself."""
        if urlsplit(url).netloc != urlsplit(self._base).netloc:
            raise RegistryFault(f"The registry {self._domain} wants the data sent to {urlsplit(url).netloc[:200]}.")
        connection = self._connect(url)
        try:
            response = self._send(connection, url, self._headers("*/*") | more, "PUT", data)
            self._read(self._checked(response, url), _MAX_ANSWER_BYTES, "The registry's answer")
        finally:
            connection.close()
