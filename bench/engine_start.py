"""How fast the engine creates and starts containers: by raw HTTP on its socket, and by the docker command line.

    python -m bench.engine_start --state DIR [--image busybox] [--runs 50] [--peer unix:///var/run/docker.sock]

Prints p50 and p95 in milliseconds of create, start (with network, until the program runs) and both, back to back and 50 ms
apart, then the wall time of `docker run --rm IMAGE true`, and the engine's resident memory before and after.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        """http.client.HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def call(connection: UnixConnection, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request on a kept connection; SystemExit with the engine's sentence when it refuses."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
    return json.loads(data) if data else None


@dataclass(frozen=True, slots=True)
class Times:
    """One row: milliseconds."""

    what: str
    p50: float
    p95: float

    @classmethod
    def of(cls, what: str, seconds: list[float]) -> Times:
        """Percentiles of a list of seconds."""
        ordered = sorted(s * 1000 for s in seconds)
        return cls(what, statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))])


def starts(socket_path: Path, image: str, runs: int, pause_s: float) -> Iterator[Times]:
    """Create and start `runs` containers one after another; removed outside the measured time."""
    connection = UnixConnection(socket_path)
    create, start, both = [], [], []
    body = {
        "Image": image,
        "Cmd": ["sleep", "60"],
        "HostConfig": {"Memory": 64 << 20, "NanoCpus": 500_000_000, "PidsLimit": 32},
    }
    for _ in range(runs):
        time.sleep(pause_s)
        began = time.perf_counter()
        identity = call(connection, "POST", "/containers/create", body)["Id"]
        made = time.perf_counter()
        call(connection, "POST", f"/containers/{identity}/start")
        ended = time.perf_counter()
        create.append(made - began)
        start.append(ended - made)
        both.append(ended - began)
        call(connection, "DELETE", f"/containers/{identity}?force=1")
    apart = f"{pause_s * 1000:.0f} ms apart" if pause_s else "back to back"
    yield Times.of(f"create, {apart}", create)
    yield Times.of(f"start, {apart}", start)
    yield Times.of(f"create + start, {apart}", both)


def runs_of(docker: str, host: str, image: str, runs: int) -> list[float]:
    """Seconds of `docker run --rm IMAGE true`."""
    return [_timed(lambda: _docker(docker, host, "run", "--rm", image, "true")) for _ in range(runs)]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _docker(docker: str, host: str, *arguments: str) -> None:
    subprocess.run([docker, "-H", host, *arguments], check=True, capture_output=True, timeout=60)


def resident_mb(pid: int) -> float:
    """RSS of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument(
        "--peer", help="another engine to compare `docker run` with, for instance unix:///var/run/docker.sock"
    )
    options = parser.parse_args()
    path = options.state / "engine.sock"
    pid = call(UnixConnection(path), "GET", "/info")["Moorage"]["Pid"]
    before = resident_mb(pid)
    rows = [*starts(path, options.image, options.runs, 0), *starts(path, options.image, options.runs, 0.05)]
    docker = shutil.which("docker")
    if docker:
        ours = runs_of(docker, f"unix://{path}", options.image, options.runs)
        rows.append(Times.of("docker run --rm true", ours))
        if options.peer:
            peer = runs_of(docker, options.peer, options.image, options.runs)
            rows.append(Times.of("docker run --rm true, peer", peer))
            print(f"ratio of docker run to the peer's: {statistics.median(ours) / statistics.median(peer):.2f}")
    for row in rows:
        print(f"{row.what:40s} p50 {row.p50:7.1f} ms   p95 {row.p95:7.1f} ms")
    print(f"engine RSS {before:.1f} MB before, {resident_mb(pid):.1f} MB after")


if __name__ == "__main__":
    main()
