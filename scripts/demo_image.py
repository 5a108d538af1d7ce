"""Build a small real image from the distribution's busybox-static, as a `docker save` archive, with no container tool.

The image serves HTTP on $PORT (8080) as user 1000 and logs one line a request: `/` a page, `/health`, `/env`,
`/burn?s=` some seconds of CPU, `/eat?mb=` some memory. The same options and busybox give the same digest.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

APPLETS = (
    *(
        "sh",
        "cat",
        "date",
        "dd",
        "env",
        "grep",
        "head",
        "hostname",
        "id",
        "kill",
        "ls",
        "mkdir",
        "nc",
        "ping",
        "ps",
        "rm",
    ),
    *("sleep", "stat", "top", "touch", "tr", "true", "uname", "vi", "wget", "yes"),
)
FOLDER = Path(__file__).resolve().parent / "demo_image"
BALLAST_FILE_BYTES = 1 << 20
MODE_EXECUTABLE, MODE_FILE, MODE_DIRECTORY, MODE_TMP = 0o755, 0o644, 0o755, 0o1777


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is in the image: `command` instead of its own, a layer of `size_mb` MiB ballast that `seed` makes another, `layer` (a tar) on top."""

    crash: bool = False
    size_mb: int = 0
    seed: int = 0
    architecture: str = "amd64"
    command: tuple[str, ...] = ()
    layer: bytes = b""

    @property
    def words(self) -> list[str]:
        """The image's command."""
        return list(self.command) or ["/app/crash" if self.crash else "/app/serve"]


@dataclass(frozen=True, slots=True)
class Blob:
    """A member of the archive below blobs/sha256."""

    media_type: str
    data: bytes

    @property
    def hex(self) -> str:
        """sha256 of the content."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def descriptor(self) -> dict[str, object]:
        """OCI content descriptor."""
        return {"mediaType": self.media_type, "digest": f"sha256:{self.hex}", "size": len(self.data)}


def _member(name: str, mode: int, kind: bytes = tarfile.REGTYPE, owner: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.uid, info.gid, info.mtime = mode, kind, owner, owner, 0
    return info


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = MODE_FILE) -> None:
    info = _member(name, mode)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def find_busybox() -> Path:
    """The distribution's static busybox; SystemExit with the way out when there is none."""
    found = shutil.which("busybox")
    if not found or b"/ld-linux" in Path(found).read_bytes()[:4096]:
        raise SystemExit("A statically linked busybox is needed: apt-get install busybox-static.")
    return Path(found)


def base_layer(busybox: bytes) -> bytes:
    """The layer with busybox, its applets' links and the server."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("app", "bin", "etc", "home", "proc", "sys", "dev", "root"):
            tar.addfile(_member(name, MODE_DIRECTORY, tarfile.DIRTYPE))
        tar.addfile(_member("home/app", MODE_DIRECTORY, tarfile.DIRTYPE, owner=1000))
        tar.addfile(_member("tmp", MODE_TMP, tarfile.DIRTYPE))
        _add(tar, "bin/busybox", busybox, MODE_EXECUTABLE)
        for applet in APPLETS:
            link = _member(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
            link.linkname = "busybox"
            tar.addfile(link)
        for script in ("serve", "answer", "crash"):
            _add(tar, f"app/{script}", (FOLDER / f"{script}.sh").read_bytes(), MODE_EXECUTABLE)
        _add(tar, "app/page.html", (FOLDER / "page.html").read_bytes())
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\napp:x:1000:\n")
    return buffer.getvalue()


def ballast_layer(size_mb: int, seed: int = 0) -> bytes:
    """A layer of `size_mb` MiB that does not compress."""
    source = random.Random(size_mb + (seed << 32))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(_member("ballast", MODE_DIRECTORY, tarfile.DIRTYPE))
        for number in range(size_mb):
            _add(tar, f"ballast/{number:05}", source.randbytes(BALLAST_FILE_BYTES))
    return buffer.getvalue()


def image_config(layers: list[Blob], contents: Contents) -> dict[str, object]:
    """The OCI image configuration."""
    return {
        "architecture": contents.architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": "1000:1000",
            "ExposedPorts": {"8080/tcp": {}},
            "Env": ["PATH=/bin", "HOME=/home/app"],
            "Cmd": contents.words,
            "WorkingDir": "/home/app",
            "Labels": {"org.opencontainers.image.title": "Moorage demo"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.hex}" for layer in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "scripts/demo_image.py"} for _ in layers],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _blobs(contents: Contents) -> tuple[Blob, Blob, list[Blob]]:
    layer_type = "application/vnd.oci.image.layer.v1.tar"
    layers = [Blob(layer_type, base_layer(find_busybox().read_bytes()))]
    if contents.size_mb:
        layers.append(Blob(layer_type, ballast_layer(contents.size_mb, contents.seed)))
    if contents.layer:
        layers.append(Blob(layer_type, contents.layer))
    config = Blob("application/vnd.oci.image.config.v1+json", _json(image_config(layers, contents)))
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    body = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return Blob(manifest_type, _json(body)), config, layers


def _documents(tag: str, manifest: Blob, config: Blob, layers: list[Blob]) -> Iterator[tuple[str, bytes]]:
    names = {
        "io.containerd.image.name": f"docker.io/library/{tag}",
        "org.opencontainers.image.ref.name": tag.split(":")[-1],
    }
    index = {"schemaVersion": 2, "manifests": [{**manifest.descriptor, "annotations": names}]}
    paths = [f"blobs/sha256/{blob.hex}" for blob in (config, *layers)]
    yield "index.json", _json(index)
    yield "manifest.json", _json([{"Config": paths[0], "RepoTags": [tag], "Layers": paths[1:]}])
    yield "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'


def build(output: BinaryIO, contents: Contents | None = None, *, tag: str = "hello:latest") -> str:
    """Write the archive to `output` and return the image id (`sha256:…`)."""
    manifest, config, layers = _blobs(contents or Contents())
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("blobs", "blobs/sha256"):
            tar.addfile(_member(name, MODE_DIRECTORY, tarfile.DIRTYPE))
        for blob in sorted((manifest, config, *layers), key=lambda blob: blob.hex):
            _add(tar, f"blobs/sha256/{blob.hex}", blob.data)
        for name, data in _documents(tag, manifest, config, layers):
            _add(tar, name, data)
    return f"sha256:{config.hex}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="-", help="archive to write, - for standard output")
    parser.add_argument("--tag", default="hello:latest")
    parser.add_argument("--crash", action="store_true", help="an image that prints two lines and exits with 3")
    parser.add_argument("--line", default="", help="a shell line to run in place of the server, /app/serve")
    parser.add_argument(
        "--size-mb", type=int, default=0, metavar="N", help="add a layer of N MiB that does not compress"
    )
    parser.add_argument("--seed", type=int, default=0, help="another layer of the same size")
    parser.add_argument("--top-mb", type=int, default=0, metavar="N", help="one more layer of N MiB, above the others")
    parser.add_argument("--top-seed", type=int, default=0, help="another layer on top of the same size")
    parser.add_argument("--architecture", default="amd64", help="GOARCH name written into the config")
    options = vars(parser.parse_args())
    output, tag, line = options.pop("output"), options.pop("tag"), options.pop("line")
    top_mb, top_seed = options.pop("top_mb"), options.pop("top_seed")
    layer = ballast_layer(top_mb, top_seed) if top_mb else b""
    contents = Contents(**options, layer=layer, command=("/bin/sh", "-c", line) if line else ())
    if output == "-":
        image = build(sys.stdout.buffer, contents, tag=tag)
    else:
        with Path(output).open("wb") as file:
            image = build(file, contents, tag=tag)
    print(image, file=sys.stderr)


if __name__ == "__main__":
    main()
