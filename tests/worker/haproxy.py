"""A real HAProxy in a temporary folder and small servers behind it, for the ingress tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

from worker.config import WorkerConfig, load
from worker.ingress import Gateway, gateway
from worker.ingress_table import AppRoute, Server


def _free(port: int) -> bool:
    """Nobody listens there. HAProxy would share it (SO_REUSEPORT) with another HAProxy without a word."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


PORTS = filter(_free, range(18_220, 18_299))


class Answers(BaseHTTPRequestHandler):
    """Says who it is and which headers came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = "".join(f"{k.lower()}: {v}\n" for k, v in self.headers.items())
        came = f"connection: {self.client_address[1]}\n"
        body = f"{self.server.word}\n{came}{headers}".encode()  # type: ignore[attr-defined]
        time.sleep(getattr(self.server, "slow_s", 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class UnixHttp(ThreadingMixIn, UnixStreamServer):
    """The portal's stand at its socket: HTTP over a unix socket."""

    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:  # type: ignore[override]
        return super().get_request()[0], ("unix", 0)


@contextmanager
def serving(word: str, *, slow_s: float = 0) -> Iterator[Server]:
    """A small HTTP server on the loopback, as a server of a route."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.word, server.slow_s = word, slow_s  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Server(word, "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def portal_at(path: Path) -> Iterator[None]:
    """Something that answers `portal` on a unix socket."""
    server = UnixHttp(str(path), Answers)
    path.chmod(0o666)  # for HAProxy's account
    server.word = "portal"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        path.unlink()
        thread.join()


class Host:
    """One ingress under test: configuration, files, and the process when it is started."""

    def __init__(self, config: WorkerConfig) -> None:
        self.port = config.port
        self.config = config
        self.gateway: Gateway = gateway(self.config)
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def alone(cls, folder: Path) -> Host:
        """An ingress with nothing else, in a folder of its own."""
        for name in ("run", "state"):
            (folder / name).mkdir()
        port = str(next(PORTS))
        return cls(load({"MOORAGE_STATE": f"{folder}/state", "MOORAGE_RUN": f"{folder}/run", "MOORAGE_PORT": port}))

    def start(self) -> None:
        """Start HAProxy with the files as they are and wait until worker and master answer on their sockets."""
        command = [
            "haproxy",
            "-W",
            "-S",
            str(self.config.haproxy_master),
            "-f",
            str(self.config.haproxy / "haproxy.cfg"),
        ]
        self.process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not (_answers(self.config.haproxy_socket) and _answers(self.config.haproxy_master)):
            assert self.process.poll() is None, "HAProxy ended"
            assert time.monotonic() < deadline, "HAProxy did not come up"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, master and workers."""
        if self.process:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def get(self, host: str, path: str = "/", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
        """One request to the ingress by Host: status, body, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                "GET", path, headers={"Host": host, **{k.replace("_", "-"): v for k, v in headers.items()}}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def route(self, *routes: AppRoute) -> None:
        """Apply routes."""
        self.gateway.apply(routes)


def _answers(admin: Path) -> bool:
    """Whether HAProxy's process at this socket says something. A master that has not yet executed itself anew does not."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        asking.connect(str(admin))
        asking.sendall(b"show version\n")
        return bool(asking.recv(100))
    return False


@contextmanager
def host() -> Iterator[Host]:
    """A host with HAProxy running, in a folder with a short path (sockets end at 107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="mw-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)  # for HAProxy's account
        found = Host.alone(Path(folder))
        found.gateway.write()
        found.start()
        try:
            yield found
        finally:
            found.stop()
