"""The read half of the OCI distribution protocol 1.1 (spec.md, "Pulling"; Docker's token authentication), over http.client.

Nothing a registry says is trusted: manifests are bounded, blobs are read up to the size their manifest gives and hashed.
Plain HTTP is spoken only to this machine and to registries the engine was told to trust (`insecure`).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from runtime.images.faults import NoSuchImage, RegistryFault
from runtime.images.format import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    ImageFault,
    digest_of,
    shown,
)
from runtime.images.records import RegistryAuth

CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_S = 60.0
_MAX_REDIRECTS = 5
_MAX_TOKEN_BYTES = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))
_CHALLENGE = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_HUB = "registry-1.docker.io"
_MAX_TRIES, _RETRY_S = 4, 0.05  # for a blob that breaks off without a byte more


class Broken(RegistryFault):
    """The registry was not there for a moment: it may be worth asking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPolicy:
    """Which registries are talked to: those of this machine, and those named by host[:port]; "*" allows every one.

    `insecure` ones may be plain HTTP.
    """

    allowed: frozenset[str] = frozenset()
    insecure: frozenset[str] = frozenset()

    def check(self, domain: str) -> None:
        """Raise RegistryFault for a registry that the administrator did not allow."""
        if is_loopback(urlsplit(f"//{domain}").hostname or "") or {domain, "*"} & (self.allowed | self.insecure):
            return
        raise RegistryFault(
            f"This engine does not talk to the registry {domain}.",
            f"The administrator allows it with the engine's option --registry {domain}.",
            status=403,
        )


def is_loopback(host: str) -> bool:
    """True for this machine: localhost, 127.0.0.0/8, ::1."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Registry:
    """One registry, for one repository `path`. Thread-safe; each request has a connection of its own."""

    def __init__(
        self, domain: str, path: str, auth: RegistryAuth | None = None, *, insecure: Collection[str] = ()
    ) -> None:
        self._path = path
        self._auth = auth or RegistryAuth()
        self._token = self._auth.token
        self._lock = threading.Lock()
        self._domain = domain
        self._uses_basic = False  # once it has asked for that
        self._insecure = frozenset(insecure)
        self._plain = self._is_trusted_plain(domain)
        host = _HUB if domain == "docker.io" else domain
        self._base = f"{'http' if self._plain else 'https'}://{host}/v2/{path}"

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """Bytes and media type of a manifest by tag or digest; a digest is verified. Raises NoSuchImage, RegistryFault."""
        with self._get(f"{self._base}/manifests/{reference}", accept=_ACCEPT) as response:
            data = self._read(response, MAX_DOCUMENT_BYTES, f"The manifest {reference}")
            kind = response.headers.get("Content-Type", "")
        if reference.startswith("sha256:") and digest_of(data) != reference:
            raise ImageFault(f"The registry {self._domain} gave {digest_of(data)} for the manifest {reference}.")
        return data, kind

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified."""
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise ImageFault(
                f"The config {descriptor.digest} is {shown(descriptor.size)} long; {shown(MAX_DOCUMENT_BYTES)} is the limit."
            )
        return b"".join(self.blob(descriptor))

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """The bytes of a blob; raises ImageFault when it turns out longer, shorter or other than its descriptor says.

        A connection that breaks is made again for the rest, some times; RegistryFault says when that does not help.
        """
        hashed, done, tries = hashlib.sha256(), 0, 0
        while True:
            try:
                for chunk in self._rest_of(descriptor, done):
                    done, tries = done + len(chunk), 0
                    hashed.update(chunk)
                    yield chunk
                break
            except Broken as broken:
                tries += 1
                if tries > _MAX_TRIES:
                    raise RegistryFault(broken.message, broken.hint) from broken
            time.sleep(_RETRY_S * 2**tries)
        if f"sha256:{hashed.hexdigest()}" != descriptor.digest:
            raise ImageFault(
                f"The registry {self._domain} gave sha256:{hashed.hexdigest()} for the blob {descriptor.digest}."
            )

    def _rest_of(self, descriptor: Descriptor, done: int) -> Iterator[bytes]:
        """What follows the first `done` bytes; raises Broken when the connection ends before the blob does."""
        left = descriptor.size - done
        ask = {"Range": f"bytes={done}-"} if done else {}
        with self._get(f"{self._base}/blobs/{descriptor.digest}", more=ask) as response:
            skip = done if response.status == 200 else 0  # it knows no ranges, or none was asked for
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                raise ImageFault(
                    f"The registry {self._domain} gave another part of {descriptor.digest} than was asked."
                )
            while chunk := self._receive(response, min(CHUNK_BYTES, skip or left + 1)):
                if skip:
                    skip -= len(chunk)
                    continue
                left -= len(chunk)
                if left < 0:
                    raise ImageFault(
                        f"The blob {descriptor.digest} is longer than the {descriptor.size} bytes it should have."
                    )
                yield chunk
        if left:
            raise Broken(f"The blob {descriptor.digest} ends {left} bytes early.", "Pull again.")

    def _is_trusted_plain(self, netloc: str) -> bool:
        return is_loopback(urlsplit(f"//{netloc}").hostname or "") or netloc in self._insecure

    def _may_be_plain(self, netloc: str) -> bool:
        """Whether plain HTTP is good enough: never where an encrypted registry sends us."""
        return self._plain and self._is_trusted_plain(netloc)

    def sign_in(self) -> None:
        """Ask the registry whether it takes the name and password, as `docker login` does; raises RegistryFault."""
        with self._get(urljoin(self._base, "/v2/")) as response:
            self._read(response, _MAX_TOKEN_BYTES, "The registry's answer")

    @contextmanager
    def _get(
        self, url: str, accept: str = "*/*", more: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> Iterator[http.client.HTTPResponse]:
        """A request without a body, signing in when asked to, following redirects of blobs to where they lie."""
        used = self._token, self._uses_basic
        with self._request(url, self._headers(accept) | dict(more or {}), method) as response:
            if response.status != 401:
                yield self._checked(response, url)
                return
            challenge = response.headers.get("WWW-Authenticate", "")
        self._sign_in(challenge, used)
        with self._request(url, self._headers(accept) | dict(more or {}), method) as response:
            yield self._checked(response, url)

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "moorage"}
        if self._uses_basic:
            headers["Authorization"] = self._basic()
        elif self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _basic(self) -> str:
        pair = f"{self._auth.username}:{self._auth.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _sign_in(self, challenge: str, used: tuple[str, bool]) -> None:
        """Answer a 401 to a request made with `used` (token, Basic or not): fetch a token where the challenge says, or begin with Basic."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._auth.username and not used[1]:
            self._uses_basic = True
            return
        fields = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or self._auth.token or not fields.get("realm"):
            raise RegistryFault(
                f"The registry {self._domain} refuses: not signed in, or the token has ended.",
                "Sign in with an account that may read this image.",
                status=401,
            )
        with self._lock:
            if self._token == used[0]:  # else another thread has just done it
                self._token = self._fetch_token(fields)

    def _fetch_token(self, fields: Mapping[str, str]) -> str:
        realm = fields["realm"]
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and self._may_be_plain(parts.netloc)):
            raise RegistryFault(
                f"The registry {self._domain} sends passwords to {realm[:200]}, which is not encrypted."
            )
        scope = fields.get("scope") or (f"repository:{self._path}:pull" if self._path else "")
        query = {"service": fields.get("service", "")} | ({"scope": scope} if scope else {})
        headers = {"Accept": "application/json", "User-Agent": "moorage"}
        if self._auth.username:
            headers["Authorization"] = self._basic()
        with self._request(f"{realm}{'&' if parts.query else '?'}{urlencode(query)}", headers) as response:
            data = self._read(self._checked(response, realm), _MAX_TOKEN_BYTES, "The registry's token")
        try:
            found = json.loads(data)
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryFault(f"The registry {self._domain} gave no token.")
        return token

    @contextmanager
    def _request(self, url: str, headers: dict[str, str], method: str = "GET") -> Iterator[http.client.HTTPResponse]:
        """One request, redirects followed; a redirect to another host takes no password along."""
        for _ in range(_MAX_REDIRECTS + 1):
            connection = self._connect(url)
            try:
                response = self._send(connection, url, headers, method)
                if response.status not in _REDIRECTS:
                    yield response
                    return
                target = urljoin(url, response.headers.get("Location", ""))
            finally:
                connection.close()
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise RegistryFault(f"The registry {self._domain} redirects more than {_MAX_REDIRECTS} times.")

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            return http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        if parts.scheme == "http" and self._may_be_plain(parts.netloc):
            return http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
        raise RegistryFault(
            f"{parts.scheme}://{parts.netloc} is not encrypted.",
            "Plain HTTP is for registries named with --insecure-registry.",
        )

    def _send(
        self,
        connection: http.client.HTTPConnection,
        url: str,
        headers: Mapping[str, str],
        method: str,
        body: bytes | Iterator[bytes] | None = None,
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(method, target, body, dict(headers))
            return connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Broken(
                f"The registry {parts.netloc} does not answer: {error}.", "Is its address right, and is it running?"
            ) from error

    def _receive(self, response: http.client.HTTPResponse, count: int) -> bytes:
        try:
            return response.read(count)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"The connection to the registry {self._domain} broke: {error}.", "Pull again.") from error

    def _read(self, response: http.client.HTTPResponse, limit: int, what: str) -> bytes:
        data = b""
        while chunk := self._receive(response, limit + 1 - len(data)):
            data += chunk
            if len(data) > limit:
                raise ImageFault(f"{what} is longer than {shown(limit)}, the limit.")
        return data

    def _checked(self, response: http.client.HTTPResponse, url: str) -> http.client.HTTPResponse:
        status = response.status
        if status in {200, 201, 202, 206}:
            return response
        what = urlsplit(url).path.removeprefix("/v2/")
        if status == 404:
            raise NoSuchImage(f"The registry {self._domain} has no {what}.", "Check the name and the tag.")
        reasons = {401: "refuses the sign-in for", 403: "does not allow this for", 429: "is asked too often for"}
        fault = Broken if status >= 500 else RegistryFault
        raise fault(
            f"The registry {self._domain} {reasons.get(status, f'answers {status} for')} {what}.",
            "Sign in with an account that may read this image." if status in {401, 403} else "Try again later.",
            status=status,
        )
