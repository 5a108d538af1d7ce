"""The portal's internal interface, over a unix socket or a URL, with the host's token. Every call has a deadline."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, override
from urllib.parse import urlencode, urlsplit

from worker.config import WorkerConfig
from worker.errors import ConfigFault, PortalFault
from worker.protocol import Desired, LimitHit, Report

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 << 20


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Portal:
    """One connection, kept open; calls take turns. Methods block."""

    def __init__(self, config: WorkerConfig, timeout_s: float = TIMEOUT_S) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._prefix = f"/internal/v1/hosts/{config.host}"

    def desired(self, etag: str = "") -> Desired | None:
        """What should be on this host, or None when it is still the one of `etag`; raises PortalFault."""
        headers = {"If-None-Match": f'"{etag}"'} if etag else {}
        status, body = self._call("GET", "/desired", headers=headers)
        if status == 304:
            return None
        found = self._mine(self._object(status, body))
        return None if found.generation == etag else found

    def report(self, report: Report) -> Desired | None:
        """Say what is; the answer may carry a new desired state. Raises PortalFault."""
        status, body = self._call("POST", "/report", body=report.to_json())
        answer = self._object(status, body).get("desired")
        return self._mine(answer) if answer else None

    def limit_hits(self, hits: Sequence[LimitHit]) -> None:
        """Tell of limits that were hit; raises PortalFault."""
        status, body = self._call("POST", "/events", body=[hit.to_json() for hit in hits])
        if status >= 300:
            self._object(status, body)

    def missing_chunks(self, backup: int, digests: Sequence[bytes]) -> list[bytes]:
        """Those of a backup's chunks that the portal does not have; raises PortalFault."""
        body = self._done(self._call("POST", f"/backups/{backup}/missing", raw=b"".join(digests)))
        return [body[n : n + 32] for n in range(0, len(body), 32)]

    def put_chunk(self, backup: int, digest: bytes, packed: bytes) -> None:
        """Send a chunk; raises PortalFault."""
        self._done(self._call("POST", f"/backups/{backup}/chunks/{digest.hex()}", raw=packed))

    def end_backup(
        self, backup: int, *, digests: bytes = b"", size_bytes: int = 0, digest: str = "", reason: str = ""
    ) -> None:
        """Say that a backup is whole, or why there is none; raises PortalFault."""
        query = urlencode({"reason": reason[:1000]} if reason else {"size": size_bytes, "digest": digest})
        self._done(self._call("POST", f"/backups/{backup}/end?{query}", raw=digests))

    def end_restore(self, restore: int, reason: str = "") -> None:
        """Say that a restore is done, or why not; raises PortalFault."""
        self._done(self._call("POST", f"/restores/{restore}/end", body={"reason": reason}))

    @contextmanager
    def restore_content(self, restore: int) -> Iterator[http.client.HTTPResponse]:
        """What is to be restored, as zstd frames, on a connection of its own; raises PortalFault."""
        connection = self._connect()
        headers = {"Authorization": f"Bearer {self._config.token()}", "Host": self._config.portal_host}
        try:
            connection.request("GET", f"{self._prefix}/restores/{restore}/content", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self._done((answer.status, answer.read(4096)))
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise self._fault(error) from error
        finally:
            connection.close()

    def _done(self, answer: tuple[int, bytes]) -> bytes:
        status, body = answer
        if not 200 <= status < 300:
            self._object(status, body)
        return body

    def close(self) -> None:
        """Let the connection go; the next call opens another."""
        with self._lock:
            self._drop()

    def _mine(self, data: Mapping[str, Any]) -> Desired:
        try:
            found = Desired.from_json(data)
        except (TypeError, ValueError, AttributeError) as error:
            raise PortalFault(
                f"The portal's desired state cannot be read: {error}.", "Are portal and worker of one version?"
            ) from error
        if found.host != self._config.host:
            raise PortalFault(
                f"The portal answered for host {found.host!r}, this is {self._config.host!r}.",
                "Check MOORAGE_HOST_NAME.",
            )
        return found

    def _object(self, status: int, body: bytes) -> Mapping[str, Any]:
        if not 200 <= status < 300:
            detail = body[:300].decode(errors="replace")
            hint = "Check the host token." if status in (401, 403, 404) else ""
            raise PortalFault(f"The portal answered {status}: {detail}", hint)
        try:
            found = json.loads(body)
        except ValueError as error:
            raise PortalFault(f"The portal's answer is not JSON ({len(body)} bytes).") from error
        if not isinstance(found, dict):
            raise PortalFault("The portal's answer is not an object.")
        return found

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        data = raw if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            token = self._config.token()
        except ConfigFault as error:  # it may come later: bootstrap makes it
            raise PortalFault(error.message, error.hint) from error
        full = {"Authorization": f"Bearer {token}", "Host": self._config.portal_host, **(headers or {})}
        if data is not None:
            full["Content-Type"] = "application/json" if raw is None else "application/octet-stream"
        with self._lock:
            fresh = self._connection is None
            try:
                return self._exchange(method, path, data, full)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if fresh or isinstance(error, TimeoutError):
                    raise self._fault(error) from error
            try:  # the kept connection had been closed by the other side: all calls may be repeated
                return self._exchange(method, path, data, full)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise self._fault(error) from error

    def _exchange(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request(method, self._prefix + path, body=data, headers=dict(headers))
        answer = self._connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES)

    def _connect(self) -> http.client.HTTPConnection:
        url = self._config.portal_url
        if url.startswith("unix:"):
            return UnixConnection(url.removeprefix("unix:"), self._timeout_s)
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self._timeout_s)

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _fault(self, error: Exception) -> PortalFault:
        if isinstance(error, TimeoutError):
            return PortalFault(f"The portal did not answer within {self._timeout_s:g} s.")
        return PortalFault(
            f"The portal at {self._config.portal_url} cannot be reached: {error or type(error).__name__}."
        )
