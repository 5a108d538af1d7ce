"""Rows of images: loading beside dockerd, and what ten layers cost the first start of a container."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.daemons import Daemon, build_image, dockerd, moorage
from bench.engine_rows import in_turn
from bench.engine_start import UnixConnection, call
from bench.rows import Row, p50
from scripts.demo_image import Contents, build

LAYERS, FIRST_STARTS = 10, 30


def load_row(ours: Daemon, peer: Daemon | None) -> Row:
    """Loading the same archive."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        archive = build_image(Path(folder), "--size-mb", "200")

        def load(daemon: Daemon) -> float:
            started = time.perf_counter()
            said = daemon.docker("load", input_path=archive)
            seconds = time.perf_counter() - started
            daemon.docker("rmi", "-f", said.split()[-1])
            return seconds

        value, other = in_turn(ours, peer, load, 3)
    return Row(name="load of a 200 MB image", value=value, peer=other, unit="s", budget=0.7, ratio=True)


def save_row(ours: Daemon, peer: Daemon | None) -> Row:
    """Saving it again."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        archive = build_image(Path(folder), "--size-mb", "200")
        names = {d.name: d.docker("load", input_path=archive).split()[-1] for d in (ours, peer) if d}
        target = Path(folder) / "out.tar"
        value, other = in_turn(ours, peer, lambda d: d.timed("save", "-o", str(target), names[d.name]), 3)
        for daemon in filter(None, (ours, peer)):
            daemon.docker("rmi", "-f", names[daemon.name])
    return Row(name="save of a 200 MB image", value=value, peer=other, unit="s", budget=1.5, ratio=True)


def _layered(number: int, count: int) -> bytes:
    """The demo image with `count` - 2 more layers of some files, unlike that of any other number."""
    data = io.BytesIO()
    build(data, Contents(seed=number), tag="base:latest")
    with tarfile.open(fileobj=io.BytesIO(data.getvalue())) as tar:
        files = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
    entry = json.loads(files["manifest.json"])[0]
    config = json.loads(files[entry["Config"]])
    layers = {name: files[name] for name in entry["Layers"]}
    for extra in range(count - len(layers)):
        layers[f"extra{extra}.tar"] = _files(f"{number}-{extra}")
        config["rootfs"]["diff_ids"].append(f"sha256:{_digest(layers[f'extra{extra}.tar'])}")
    config["config"]["Labels"] = {"number": f"{number}-{count}"}
    manifest = [{"Config": "config.json", "RepoTags": [f"layers{count}:v{number}"], "Layers": list(layers)}]
    members = {**layers, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    return _archive(members)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _files(mark: str) -> bytes:
    return _archive({f"srv/{mark}/{n}": f"{mark} {n}".encode() for n in range(20)})


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def first_start_row(ours: Daemon) -> Row:
    """Milliseconds that the first start from an image of ten layers takes above one from an image of few, in turn."""
    figures: dict[int, list[float]] = {2: [], LAYERS: []}
    connection = UnixConnection(ours.socket)
    for number in range(FIRST_STARTS):
        for count in (2, LAYERS) if number % 2 else (LAYERS, 2):
            image = f"layers{count}:v{number}"
            connection.request("POST", "/images/load", _layered(number, count))
            assert _read(connection.getresponse()) == 200
            time.sleep(0.3)  # the next crew is parked, what the load left is done
            identity = call(connection, "POST", "/containers/create", {"Image": image, "Cmd": ["sleep", "60"]})["Id"]
            started = time.perf_counter()
            call(connection, "POST", f"/containers/{identity}/start")
            figures[count].append(1000 * (time.perf_counter() - started))
            call(connection, "DELETE", f"/containers/{identity}?force=1")
            call(connection, "DELETE", f"/images/{image}?force=1")
    above = p50(figures[LAYERS]) - p50(figures[2])
    note = f"{p50(figures[LAYERS]):.3g} and {p50(figures[2]):.3g} ms"
    return Row(name="first start: 10 layers above 2", value=above, unit="ms", budget=5, note=note)


def _read(response: http.client.HTTPResponse) -> int:
    response.read()
    return response.status


def rows() -> Iterator[Row]:
    """All rows, both engines running side by side."""
    with moorage() as ours, dockerd() as peer:
        yield first_start_row(ours)
        yield load_row(ours, peer)
        yield save_row(ours, peer)
