"""A small real portal for one host: serves Desired and an image by the distribution protocol, takes reports. HTTP on the loopback."""

from __future__ import annotations

import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from worker.protocol import Desired, DesiredInstance, GroupLimits, ObservedInstance, Report, Route

TOKEN = "host-token"
PULL_TOKEN = "pull-token"


class SmallPortal:
    """What should be on the host, and what the host said. Changing `desired` makes a new generation."""

    def __init__(self, host: str = "local") -> None:
        self.lock = threading.Condition()
        self.desired = Desired(host=host, generation="g0")
        self.reports: list[tuple[float, Report]] = []
        self.hits: list[dict[str, Any]] = []
        self.blobs: dict[str, tuple[str, bytes]] = {}
        self.answer: Callable[[SmallPortal, Report], None] = lambda _portal, _report: None
        self.port = 0
        self._number = 0

    def want(
        self,
        *instances: DesiredInstance,
        routes: tuple[Route, ...] | None = None,
        groups: tuple[GroupLimits, ...] = (),
    ) -> None:
        """A new desired state; new routes raise the route generation."""
        with self.lock:
            self._number += 1
            new_routes = self.desired.routes if routes is None else routes
            raised = self.desired.route_generation + (new_routes != self.desired.routes)
            self.desired = replace(
                self.desired,
                generation=f"g{self._number}",
                instances=instances,
                routes=new_routes,
                route_generation=raised,
                groups=groups,
            )

    def load(self, archive: Path) -> str:
        """Offer the image of an archive; the digest of its manifest."""
        with tarfile.open(archive) as tar:
            read = {m.name: f.read() for m in tar if (f := tar.extractfile(m))}
        entry = json.loads(read["index.json"])["manifests"][0]
        manifest = read["blobs/" + entry["digest"].replace(":", "/")]
        self.blobs[entry["digest"]] = entry["mediaType"], manifest
        for name, data in read.items():
            if name.startswith("blobs/"):
                self.blobs.setdefault("sha256:" + name.rpartition("/")[2], ("application/octet-stream", data))
        return str(entry["digest"])

    def seen(self, instance: str) -> ObservedInstance | None:
        """How the newest report has it."""
        with self.lock:
            found = self.reports[-1][1].instances if self.reports else ()
        return next((o for o in found if o.id == instance), None)

    def wait(self, what: Callable[[Report], Any], timeout_s: float = 20) -> Report:
        """The first report from now on, or the newest so far, of which `what` is true."""
        deadline = time.monotonic() + timeout_s
        with self.lock:
            while True:
                if self.reports and what(self.reports[-1][1]):
                    return self.reports[-1][1]
                left = deadline - time.monotonic()
                newest = self.reports[-1][1].instances if self.reports else "no report"
                assert self.lock.wait(max(0, left)), f"not within {timeout_s} s; the newest says {newest}"

    def wait_state(self, instance: str, *states: str, timeout_s: float = 20) -> ObservedInstance:
        """The instance, once it is in one of these states."""
        report = self.wait(lambda r: any(o.id == instance and o.state in states for o in r.instances), timeout_s)
        return next(o for o in report.instances if o.id == instance)

    def wait_absent(self, instance: str, timeout_s: float = 20) -> None:
        """Until a complete report does not name it."""
        self.wait(lambda r: r.complete and all(o.id != instance for o in r.instances), timeout_s)

    def take(self, report: Report) -> Desired | None:
        """One report; the next desired state when it is another."""
        self.answer(self, report)
        with self.lock:
            self.reports.append((time.monotonic(), report))
            self.lock.notify_all()
            return None if self.desired.generation == report.generation else self.desired


class Door(BaseHTTPRequestHandler):
    """HTTP of the small portal."""

    protocol_version = "HTTP/1.1"

    @property
    def portal(self) -> SmallPortal:
        return self.server.portal  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        if self.path.startswith("/v2/"):
            self._registry()
        elif self._is_host():
            desired = self.portal.desired
            if self.headers.get("If-None-Match") == f'"{desired.generation}"':
                self._answer(304, b"")
            else:
                self._answer(200, json.dumps(desired.to_json()).encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_host():
            return
        if self.path.endswith("/events"):
            self.portal.hits += body
            self._answer(204, b"")
            return
        found = self.portal.take(Report.from_json(body))
        answer = {"generation": self.portal.desired.generation, "desired": found.to_json() if found else None}
        self._answer(200, json.dumps(answer).encode())

    def _is_host(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer(401, b'{"detail": "no"}')
        return False

    def _registry(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {PULL_TOKEN}":
            self._answer(401, b"{}")
            return
        kind, data = self.portal.blobs.get(self.path.rpartition("/")[2], ("", b""))
        if self.path == "/v2/":
            self._answer(200, b"{}")
        elif kind:
            self._answer(200, data, kind)
        else:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def small_portal() -> Iterator[SmallPortal]:
    """One portal, listening."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    portal = SmallPortal()
    server.portal = portal  # type: ignore[attr-defined]
    portal.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield portal
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
