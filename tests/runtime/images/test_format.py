"""Configs, manifests, indexes, names and archives, as Docker and OCI write them."""

from __future__ import annotations

import json

import pytest

from runtime.images.format import (
    ArchiveReader,
    BlobWriter,
    ImageFault,
    Index,
    Manifest,
    StoredBlob,
    chain_ids,
    choose_platform,
    digest_of,
    images,
    is_digest,
    parse_config,
    parse_manifest,
    parse_reference,
    shown,
    sniff,
)
from tests.corpus import tar

A, B = (tar.layer(tar.entry(name, b"x" * 5000)) for name in "ab")


class Memory:
    """A sink that keeps every blob."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}

    def open(self, name: str, size: int, kind: str) -> BlobWriter:
        self.kinds[name] = kind
        return _Kept(self, size)


class _Kept:
    def __init__(self, memory: Memory, size: int) -> None:
        self._memory, self._size = memory, size
        self._data = bytearray()

    def write(self, data: memoryview) -> None:
        self._data += data

    def finish(self, blob: StoredBlob) -> None:
        assert blob.size == self._size == len(self._data) and digest_of(bytes(self._data)) == blob.digest
        self._memory.blobs[blob.digest] = bytes(self._data)


def read(archive: bytes, step: int = 1000) -> tuple[ArchiveReader, Memory]:
    memory = Memory()
    reader = ArchiveReader(memory)
    for at in range(0, len(archive), step):
        reader.feed(archive[at : at + step])
    reader.finish()
    return reader, memory


def test_a_config_says_how_to_run_the_image() -> None:
    run = {
        "Entrypoint": ["/entry"], "Cmd": ["serve"], "Env": ["A=1", "B="], "User": "1000:1000", "WorkingDir": "/srv",
        "ExposedPorts": {"9000/udp": {}, "8080/tcp": {}, "443": {}, "5000-5010/tcp": {}}, "Volumes": {"/data": {}},
        "Labels": {"a": "b"}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 3},
    }  # fmt: skip
    config = parse_config(tar.config([tar.digest(A)], config=run, created="2024-01-01T00:00:00Z"))
    assert config.command == ("/entry", "serve") and config.env == ("A=1", "B=")
    assert (config.user, config.working_dir, config.port, config.stop_signal) == ("1000:1000", "/srv", 443, "SIGQUIT")
    assert config.volumes == ("/data",) and config.labels == {"a": "b"}
    assert config.healthcheck is not None and config.healthcheck.interval_ns == 5_000_000_000
    assert config.chain_ids == config.diff_ids == (tar.digest(A),)


def test_an_image_that_exposes_nothing_has_no_port_and_null_fields_are_empty() -> None:
    config = parse_config(tar.config([], config={"Cmd": None, "Env": None, "ExposedPorts": None, "Labels": None}))
    assert config.port is None and config.command == () and config.cmd is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"config": {"Env": ["NOVALUE"]}}, "not NAME=value"),
        ({"config": {"Cmd": "x" * 2_000_000}}, "longer than"),
        ({"config": {"User": "a\0b"}}, "NUL"),
        ({"config": {"Labels": {"a": 1}}}, "not a string"),
        ({"config": [1]}, "not a JSON object"),
        ({"rootfs": {"diff_ids": ["sha512:00"]}}, "sha256"),
        ({"rootfs": {"diff_ids": [tar.digest(A)] * 128}}, "128 layers; 127"),
        ({"config": {"Healthcheck": {"Interval": -1}}}, "whole number"),
    ],
)
def test_a_config_that_is_wrong_is_refused_with_the_field(document: dict[str, object], words: str) -> None:
    base = {"os": "linux", "rootfs": {"diff_ids": []}}
    with pytest.raises(ImageFault, match=words):
        parse_config(json.dumps(base | document).encode())


def test_chain_ids_follow_the_specification() -> None:
    first, second = tar.digest(A), tar.digest(B)
    assert chain_ids([first, second]) == (first, tar.digest(f"{first} {second}".encode()))


def test_an_index_gives_this_machine_its_manifest() -> None:
    def entry(architecture: str, variant: str = "", **more: str) -> dict[str, object]:
        platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {}), **more}
        return {
            **tar.descriptor(f"{architecture}{variant}".encode(), "application/vnd.oci.image.manifest.v1+json"),
            "platform": platform,
        }

    data = {
        "schemaVersion": 2,
        "manifests": [entry("amd64", "v3"), entry("arm64", "v8"), entry("amd64"), entry("unknown", os="unknown")],
    }
    index = parse_manifest(json.dumps(data).encode())
    assert isinstance(index, Index)
    assert choose_platform(index, "amd64").digest == digest_of(b"amd64")
    assert choose_platform(index, "arm64").digest == digest_of(b"arm64v8")
    with pytest.raises(ImageFault, match=r"not for linux/s390x; it is for linux/amd64, linux/arm64"):
        choose_platform(index, "s390x")


@pytest.mark.parametrize(
    ("text", "name", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine:latest"),
        ("library/alpine:3", "docker.io/library/alpine", "alpine:3"),
        ("docker.io/library/alpine", "docker.io/library/alpine", "alpine:latest"),
        ("index.docker.io/user/app:v1", "docker.io/user/app", "user/app:v1"),
        ("localhost/app", "localhost/app", "localhost/app:latest"),
        ("localhost:5000/team/app:v1", "localhost:5000/team/app", "localhost:5000/team/app:v1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"r.example/a@sha256:{'0' * 64}", "r.example/a", f"r.example/a@sha256:{'0' * 64}"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, name: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.familiar) == (name, familiar)


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a:", "a:b:c", "a@sha256:12", "../x", "a//b", "a b", "a:" + "t" * 129, "-a/b"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageFault, match="not an image name"):
        parse_reference(text)


def test_an_old_docker_archive_becomes_blobs_and_a_manifest() -> None:
    reader, memory = read(tar.docker_archive([A, B], tags=["app:v1", "docker.io/library/app:v2"]))
    (image,) = images(reader, "amd64")
    assert image.tags == ("app:v1", "app:v2")
    assert [layer.digest for layer in image.manifest.layers] == [tar.digest(A), tar.digest(B)]
    assert all(layer.digest in memory.blobs for layer in image.manifest.layers) and image.id in memory.blobs
    again = parse_manifest(image.manifest.data)
    assert isinstance(again, Manifest) and again.digest == image.manifest.digest


def test_the_same_archive_gives_the_same_manifest_in_any_pieces() -> None:
    archive = tar.docker_archive([A, B])
    found = {images(read(archive, step)[0], "amd64")[0].manifest.digest for step in (1, 511, 512, 7777, len(archive))}
    assert len(found) == 1


def test_a_linked_layer_of_an_old_archive_is_found() -> None:
    config = tar.config([tar.digest(A), tar.digest(A)])
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["one/layer.tar", "two/layer.tar"]}]
    archive = (
        tar.entry("c.json", config)
        + tar.entry("one/layer.tar", A)
        + tar.symlink("two/layer.tar", "../one/layer.tar")
        + tar.entry("manifest.json", json.dumps(manifest).encode())
        + tar.END
    )
    (image,) = images(read(archive)[0], "amd64")
    assert [layer.digest for layer in image.manifest.layers] == [tar.digest(A)] * 2


def test_an_oci_layout_keeps_its_own_manifest() -> None:
    archive = tar.oci_image([A])
    reader, memory = read(archive)
    (image,) = images(reader, "amd64")
    assert image.manifest.digest in memory.blobs and image.tags == ()


def test_two_images_of_one_archive_are_both_found() -> None:
    one, two = tar.config([tar.digest(A)]), tar.config([tar.digest(B)])
    manifest = [
        {"Config": "1.json", "RepoTags": ["one:v1"], "Layers": ["a.tar"]},
        {"Config": "2.json", "RepoTags": ["two:v1"], "Layers": ["b.tar"]},
    ]
    members = {"1.json": one, "2.json": two, "a.tar": A, "b.tar": B, "manifest.json": json.dumps(manifest).encode()}
    archive = b"".join(tar.entry(name, data) for name, data in members.items()) + tar.END
    assert [image.tags for image in images(read(archive)[0], "amd64")] == [("one:v1",), ("two:v1",)]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x50\x2a\x4d\x18", "zstd"), (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"), (b' {"a"', "json"), (A[:512], "tar"), (bytes(512), "tar"), (b"MZ", "unknown"), (b"", "unknown"),
        (tar.header(b"{brace", magic=b""), "json"), (tar.header(b"old", magic=b""), "tar"),
    ],
)  # fmt: skip
def test_a_stream_is_known_by_its_first_bytes(head: bytes, kind: str) -> None:
    assert sniff(head) == kind


def test_sizes_are_said_as_people_read_them() -> None:
    assert [shown(size) for size in (0, 999, 1000, 1_500_000, 2_000_000_000, 10**15)] == [
        "0 bytes", "999 bytes", "1 kB", "1.5 MB", "2 GB", "1e+03 TB",
    ]  # fmt: skip


def test_only_sha256_is_a_digest() -> None:
    assert is_digest("sha256:" + "0" * 64)
    assert not any(
        is_digest(text)
        for text in ("sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha512:" + "0" * 128, "sha256:" + "0" * 64 + "\n")
    )
