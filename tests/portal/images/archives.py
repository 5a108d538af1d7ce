"""Real archives of the demo image in every dress, and hostile ones."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from scripts.demo_image import Contents, build


def demo(*, size_mb: int = 0, tag: str = "hello:1.0", architecture: str = "amd64", crash: bool = False) -> bytes:
    """The demo image as Docker 25 and newer save it."""
    buffer = io.BytesIO()
    build(buffer, Contents(size_mb=size_mb, architecture=architecture, crash=crash), tag=tag)
    return buffer.getvalue()


def members(archive: bytes) -> dict[str, bytes]:
    """Name → content of the files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]


def packed(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """An archive of files, and of entries without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return buffer.getvalue()


def old_style(archive: bytes) -> bytes:
    """The same image as Docker before 25 saved it: `<id>/layer.tar`, `<hex>.json`, manifest.json last."""
    files = members(archive)
    entry = json.loads(files["manifest.json"])[0]
    config = f"{entry['Config'].rpartition('/')[2]}.json"
    layers = {f"layer{number}/layer.tar": files[name] for number, name in enumerate(entry["Layers"])}
    manifest = [{"Config": config, "RepoTags": entry["RepoTags"], "Layers": list(layers)}]
    return packed({**layers, config: files[entry["Config"]], "manifest.json": json.dumps(manifest).encode()})


def by_skopeo(archive: bytes, folder: Path, kind: str) -> bytes:
    """The same image written by skopeo, as `oci-archive` or `docker-archive`."""
    source, target = folder / "source.tar", folder / f"{kind}.tar"
    source.write_bytes(archive)
    command = ["skopeo", "copy", "--quiet", f"docker-archive:{source}", f"{kind}:{target}:hello:1.0"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target.read_bytes()


async def chunks(data: bytes, size: int = 60_000) -> AsyncIterator[bytes]:
    """As a server hands over a body."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def special(kind: bytes, name: str = "device") -> tarfile.TarInfo:
    """An entry that is no file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def with_member(archive: bytes, name: str, data: bytes) -> bytes:
    """The archive with one more member."""
    return packed({**members(archive), name: data})


def without(archive: bytes, names: Iterable[str]) -> bytes:
    """The archive with some members left out."""
    gone = set(names)
    return packed({name: data for name, data in members(archive).items() if name not in gone})
