"""Archives that must be read: one function each, its docstring says what is special. `python -m tests.corpus.good FOLDER` writes them.

Each holds the image of `LAYERS`, with what `FILES` says in it, unless it says otherwise.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from backports import zstd

from tests.corpus import tar

LAYERS = [
    tar.layer(
        tar.folder("etc"), tar.entry("etc/motd", b"hello\n"), tar.entry("etc/old", b"x"), tar.folder("opt"),
        tar.entry("opt/inside", b"x"), tar.entry("turns", b"a file"),
    ),
    tar.layer(
        tar.entry("etc/.wh.old"), tar.entry("opt", b"a file"), tar.folder("turns"), tar.entry("turns/in", b"y"),
    ),
]  # fmt: skip
FILES = {"etc/motd": b"hello\n", "opt": b"a file", "turns/in": b"y"}
DIFF_IDS = [tar.digest(item) for item in LAYERS]
_OCI = "application/vnd.oci.image."
_DOCKER = "application/vnd.docker."


@dataclass(frozen=True)
class Good:
    """One archive, the files that its image has, and its names."""

    name: str
    build: Callable[[], bytes]
    files: dict[str, bytes]
    tags: tuple[str, ...]
    gone: tuple[str, ...] = ("etc/old", "opt/inside")
    images: int = field(default=1)


GOOD: list[Good] = []
type Build = Callable[[], bytes]


def read(files: dict[str, bytes] | None = None, *tags: str, images: int = 1) -> Callable[[Build], Build]:
    """Put a builder into the corpus."""

    def add(build: Build) -> Build:
        gone = ("etc/old", "opt/inside") if files is None else ()
        GOOD.append(Good(build.__name__, build, files or FILES, tags, gone, images))
        return build

    return add


def _v1_layers(pack: Callable[[bytes], bytes] = bytes) -> bytes:
    """Folders of layers as Docker before 1.10 and up to 24 write them."""
    ids = ["1" * 64, "2" * 64]
    members = []
    for number, (layer_id, data) in enumerate(zip(ids, LAYERS, strict=True)):
        document = {
            "id": layer_id,
            "created": "2015-01-01T00:00:00Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", "#"]},
        }
        document |= {"parent": ids[number - 1]} if number else {}
        document |= {"config": {"Cmd": ["/bin/true"]}, "architecture": "amd64", "os": "linux"}
        members += [
            tar.folder(f"{layer_id}/"), tar.entry(f"{layer_id}/VERSION", b"1.0"),
            tar.entry(f"{layer_id}/json", json.dumps(document).encode()), tar.entry(f"{layer_id}/layer.tar", pack(data)),
        ]  # fmt: skip
    return b"".join(members)


@read(None, "old:v1")
def docker_before_1_10() -> bytes:
    """Layers' documents and `repositories`, no manifest.json, no config."""
    return _v1_layers() + tar.entry("repositories", json.dumps({"old": {"v1": "2" * 64}}).encode()) + tar.END


@read(None)
def docker_before_1_10_without_a_name() -> bytes:
    """The same, saved by id."""
    return _v1_layers() + tar.END


@read(None, "app:v1")
def docker_1_10_to_24() -> bytes:
    """`<id>/layer.tar`, the old documents, repositories and manifest.json."""
    config = tar.config(DIFF_IDS)
    name = f"{tar.digest(config)[7:]}.json"
    layers = [f"{'1' * 64}/layer.tar", f"{'2' * 64}/layer.tar"]
    manifest = [{"Config": name, "RepoTags": ["app:v1"], "Layers": layers}]
    return (
        _v1_layers()
        + tar.entry(name, config)
        + tar.entry("manifest.json", json.dumps(manifest).encode())
        + tar.entry("repositories", json.dumps({"app": {"v1": "2" * 64}}).encode())
        + tar.END
    )


def _packed(pack: Callable[[bytes], bytes]) -> bytes:
    return tar.docker_archive([pack(item) for item in LAYERS], diff_ids=DIFF_IDS, tags=["app:v1"])


@read(None, "app:v1")
def layers_by_gzip() -> bytes:
    """Compressed layers in an archive of Docker's."""
    return _packed(gzip.compress)


@read(None, "app:v1")
def layers_by_bzip2() -> bytes:
    """A compression that no specification names and Docker reads."""
    return _packed(bz2.compress)


@read(None, "app:v1")
def layers_by_xz() -> bytes:
    """Another one."""
    return _packed(lzma.compress)


@read(None, "app:v1")
def layers_by_zstd() -> bytes:
    """Plain zstd."""
    return _packed(zstd.compress)


@read(None, "app:v1")
def layers_by_zstd_chunked() -> bytes:
    """zstd:chunked: a frame for each file, then the table of contents and the footer in frames that are skipped."""

    def skipped(data: bytes) -> bytes:
        return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)) + data

    def pack(data: bytes) -> bytes:
        frames = [zstd.compress(data[at : at + 512]) for at in range(0, len(data), 512)]
        return (
            b"".join(frames) + skipped(zstd.compress(b'{"version":1,"entries":[]}')) + skipped(bytes(32) + b"GNUlInUx")
        )

    return _packed(pack)


@read(None, "app:v1")
def layers_by_zstd_that_begin_with_a_skipped_frame() -> bytes:
    """Seekable formats put a frame that is skipped first."""
    return _packed(lambda data: b"\x5e\x2a\x4d\x18\x04\x00\x00\x00meta" + zstd.compress(data))


@read(None, "app:v1")
def layers_by_estargz() -> bytes:
    """eStargz: a gzip member for each chunk, the table of contents as a last entry, an empty member as the footer."""
    layers = []
    for data in LAYERS:
        body = data[: -len(tar.END)] + tar.entry("stargz.index.json", b'{"version":1,"entries":[]}') + tar.END
        members = [gzip.compress(body[at : at + 1024]) for at in range(0, len(body), 1024)]
        footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0%016xSTARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0" % 0
        layers.append((b"".join(members) + footer, tar.digest(body)))
    return tar.docker_archive([item for item, _ in layers], diff_ids=[name for _, name in layers], tags=["app:v1"])


def _outer(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(tar.docker_archive(LAYERS, tags=["app:v1"]))


@read(None, "app:v1")
def archive_by_gzip() -> bytes:
    """The whole archive compressed."""
    return _outer(gzip.compress)


@read(None, "app:v1")
def archive_by_bzip2() -> bytes:
    """The same by bzip2."""
    return _outer(bz2.compress)


@read(None, "app:v1")
def archive_by_xz() -> bytes:
    """The same by xz."""
    return _outer(lzma.compress)


@read(None, "app:v1")
def archive_by_zstd() -> bytes:
    """The same by zstd."""
    return _outer(zstd.compress)


@read(None)
def oci_layout() -> bytes:
    """An OCI layout."""
    return tar.oci_image(LAYERS)


@read(None)
def oci_layout_with_docker_types() -> bytes:
    """A layout whose manifest is Docker's v2."""
    config = tar.config(DIFF_IDS)
    return tar.oci_image(
        LAYERS,
        layer_type=f"{_DOCKER}image.rootfs.diff.tar",
        mediaType=f"{_DOCKER}distribution.manifest.v2+json",
        config=tar.descriptor(config, f"{_DOCKER}container.image.v1+json"),
    )


def _index(kind: str, manifest_kind: str) -> bytes:
    """A layout with an index inside: two other platforms, an attestation, and this one."""
    config = tar.config(DIFF_IDS)
    layers = [tar.descriptor(item, f"{_OCI}layer.v1.tar") for item in LAYERS]
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_kind,
        "config": tar.descriptor(config, f"{_OCI}config.v1+json"),
    }
    data = json.dumps(manifest | {"layers": layers}).encode()
    entries = [
        {
            **tar.descriptor(b"other", manifest_kind),
            "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
        },
        {
            **tar.descriptor(b"newer", manifest_kind),
            "platform": {"os": "linux", "architecture": "amd64", "variant": "v4"},
        },
        {**tar.descriptor(b"proof", manifest_kind), "platform": {"os": "unknown", "architecture": "unknown"}},
        {**tar.descriptor(data, manifest_kind), "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    inner = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    names = {"io.containerd.image.name": "docker.io/library/app:v1", "org.opencontainers.image.ref.name": "v1"}
    outer = {"schemaVersion": 2, "manifests": [{**tar.descriptor(inner, kind), "annotations": names}]}
    return tar.oci_archive({tar.digest(item): item for item in (*LAYERS, config, data, inner)}, outer)


@read(None, "app:v1")
def platform_from_an_oci_index() -> bytes:
    """An index in the index."""
    return _index(f"{_OCI}index.v1+json", f"{_OCI}manifest.v1+json")


@read(None, "app:v1")
def platform_from_a_manifest_list() -> bytes:
    """Docker's form of it."""
    return _index(f"{_DOCKER}distribution.manifest.list.v2+json", f"{_DOCKER}distribution.manifest.v2+json")


@read(None, "one:v1", "two:v1", images=2)
def two_images() -> bytes:
    """Two images that share a layer."""
    one, two = tar.config(DIFF_IDS), tar.config(DIFF_IDS[:1])
    manifest = [
        {"Config": "1.json", "RepoTags": ["one:v1"], "Layers": ["a.tar", "b.tar"]},
        {"Config": "2.json", "RepoTags": ["two:v1"], "Layers": ["a.tar"]},
    ]
    members = {"1.json": one, "2.json": two, "a.tar": LAYERS[0], "b.tar": LAYERS[1]}
    members["manifest.json"] = json.dumps(manifest).encode()
    return b"".join(tar.entry(name, data) for name, data in members.items()) + tar.END


@read({"file126": b"126", "file0": b"0"}, "many:v1")
def layers_127() -> bytes:
    """As many layers as there may be."""
    layers = [tar.layer(tar.entry(f"file{number}", b"%d" % number)) for number in range(127)]
    return tar.docker_archive(layers, tags=["many:v1"])


ROOT = {"bin/sh": b"#!", "etc/motd": b"hello\n"}
_ROOT_TAR = tar.layer(
    tar.folder("./"), tar.folder("./bin"), tar.entry("./bin/sh", b"#!", mode=0o755), tar.folder("./dev"),
    tar.entry("./dev/null", kind=b"3", extra=b""), tar.entry("./dev/sda", kind=b"4"), tar.folder("./etc"),
    tar.entry("./etc/motd", b"hello\n"), tar.symlink("./lib", "/usr/lib"), tar.entry("./run/pipe", kind=b"6"),
)  # fmt: skip


@read(ROOT)
def root_file_system() -> bytes:
    """A plain tar, as tar or debootstrap make it, with devices: one layer, no command."""
    return _ROOT_TAR


@read(ROOT | {"app/serve": b"x"})
def root_file_system_that_begins_otherwise() -> bytes:
    """The first folder says nothing, and has links that an archive must not have."""
    first = tar.folder("app") + tar.entry("app/serve", b"x") + tar.symlink("app/link", "/etc/motd")
    return gzip.compress(first + _ROOT_TAR)


@read(ROOT)
def root_file_system_by_gzip() -> bytes:
    """The same compressed."""
    return gzip.compress(_ROOT_TAR)


@read(ROOT)
def root_file_system_by_zstd() -> bytes:
    """The same by zstd."""
    return zstd.compress(_ROOT_TAR)


@read(ROOT)
def root_file_system_by_xz() -> bytes:
    """The same by xz, as many are offered."""
    return lzma.compress(_ROOT_TAR)


@read({"a": b"1", "dev/kept": b"x"})
def devices_in_a_layer() -> bytes:
    """Nodes, one that was a file before, one that a file replaces, and a hard link to one: all are left out."""
    return tar.docker_archive(
        [
            tar.layer(
                tar.entry("a", kind=b"4"), tar.entry("a", b"1"), tar.entry("b", b"file"), tar.entry("b", kind=b"3"),
                tar.entry("dev/sda", kind=b"4"), tar.hard_link("dev/sdb", "dev/sda"), tar.entry("dev/kept", b"x"),
            )
        ],
        tags=[],
    )  # fmt: skip


def main() -> None:
    """Write the corpus into a folder."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for good in GOOD:
        (target / f"{good.name}.tar").write_bytes(good.build())


if __name__ == "__main__":
    main()
