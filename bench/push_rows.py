"""A push of one large blob to the whole platform, beside how quickly one core makes its digest and the disk takes its bytes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row, p50
from scripts import trial

SIZE = 1 << 30
PIECE = 1 << 20
RUNS = 5


def blob(path: Path, seed: int) -> str:
    """A file of `SIZE` bytes that no other seed has; its digest."""
    piece, hashed = bytearray(os.urandom(PIECE)), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE // PIECE):
            piece[:16] = number.to_bytes(8) + seed.to_bytes(8)
            file.write(piece)
            hashed.update(piece)
    return f"sha256:{hashed.hexdigest()}"


def digest_seconds(path: Path) -> float:
    """What one core takes for its sha256, the bytes being in memory."""
    with path.open("rb") as file:
        started = time.perf_counter()
        hashlib.file_digest(file, "sha256")
        return time.perf_counter() - started


def disk_seconds(path: Path, beside: Path) -> float:
    """What a copy of it takes until the disk has it."""
    with path.open("rb") as source, beside.open("wb") as target:
        started = time.perf_counter()
        while data := source.read(PIECE):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())
        taken = time.perf_counter() - started
    beside.unlink()
    return taken


def push_seconds(running: trial.Trial, path: Path, digest: str) -> float:
    """From the first byte sent to the blob's being there, as docker sends it: POST, PATCH, PUT."""
    headers = {"Authorization": f"Bearer {running.token}", "Host": f"localhost:{running.port}"}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120, blocksize=PIECE)

    def call(method: str, address: str, body: object = None, **more: str) -> http.client.HTTPResponse:
        connection.request(method, address, body, headers | more)  # type: ignore[arg-type]  # an open file is fine
        answer = connection.getresponse()
        text = answer.read()
        if answer.status not in (201, 202):
            raise RuntimeError(f"{method} {address} answered {answer.status}: {text[:300]!r}")
        return answer

    with contextlib.closing(connection), path.open("rb") as file:
        address = call("POST", "/v2/admin/push-bench/blobs/uploads/").headers["Location"]
        started = time.perf_counter()
        call("PATCH", address, file, **{"Content-Length": str(SIZE)})
        call("PUT", f"{address}?digest={digest}")
        return time.perf_counter() - started


def rows(running: trial.Trial, folder: Path) -> Iterator[Row]:
    """In turn: digest, disk, push."""
    running.call("PUT", "/api/v1/teams/admin/quota", {"image_bytes": 2 * RUNS * SIZE})
    running.call("POST", "/api/v1/apps", {"app": "push-bench", "plan": "nano"})
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path, figures = Path(name) / "blob", []
        for number in range(RUNS):
            digest = blob(path, number)
            alone = digest_seconds(path), disk_seconds(path, Path(name) / "copy")
            figures.append((push_seconds(running, path, digest), *alone))
    push, hashing, disk = (SIZE / 1e6 / p50(column) for column in zip(*figures, strict=True))
    note = f"the disk alone takes {disk:.0f} MB/s"
    yield Row(
        name="push of a 1 GB blob / sha256 on one core", value=push, peer=hashing, unit="MB/s", budget=0.7, ratio=True,
        at_least=True, note=note,
    )  # fmt: skip
