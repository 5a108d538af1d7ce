"""Tar archives made byte by byte, so that every field can lie."""

from __future__ import annotations

import hashlib
import json
from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)
AMD64 = "amd64"


def padded(data: bytes) -> bytes:
    """`data` filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def checksummed(block: bytearray) -> bytes:
    """A header with the right checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def header(
    name: bytes,
    *,
    size: int = 0,
    kind: bytes = b"0",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    link: bytes = b"",
    mtime: int = 0,
    magic: bytes = b"ustar\00000",
    **raw: bytes,
) -> bytes:
    """One header; `raw` replaces fields by name (`size_field`, `uid_field`, `extra`: bytes from offset 345 on)."""
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = raw.get("uid_field", b"%07o\0" % uid)
    block[116:124] = b"%07o\0" % gid
    block[124:136] = raw.get("size_field", b"%011o\0" % size)
    block[136:148] = b"%011o\0" % mtime
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257 : 257 + len(magic)] = magic
    extra = raw.get("extra", b"")
    block[345 : 345 + len(extra)] = extra
    return checksummed(block)


def entry(name: str | bytes, data: bytes = b"", **fields: Any) -> bytes:
    """A header and its data."""
    raw = name.encode() if isinstance(name, str) else name
    return header(raw, **{"size": len(data)} | fields) + padded(data)


def folder(name: str, **fields: Any) -> bytes:
    """A folder."""
    return entry(name, kind=b"5", **{"mode": 0o755} | fields)


def symlink(name: str, target: str) -> bytes:
    """A symbolic link."""
    return entry(name, kind=b"2", link=target.encode(), mode=0o777)


def hard_link(name: str, target: str) -> bytes:
    """A hard link."""
    return entry(name, kind=b"1", link=target.encode())


def pax_record(key: str, value: bytes) -> bytes:
    """One record of an extended header, its length counting itself."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: dict[str, bytes]) -> bytes:
    """An extended header for the entry that follows."""
    return entry("PaxHeaders/x", b"".join(pax_record(key, value) for key, value in records.items()), kind=b"x")


def layer(*entries: bytes) -> bytes:
    """A layer with its end marker."""
    return b"".join(entries) + END


def digest(data: bytes) -> str:
    """sha256 digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(diff_ids: list[str], **changes: Any) -> bytes:
    """An image config."""
    document = {
        "architecture": AMD64,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"], "ExposedPorts": {"8080/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document | changes).encode()


def docker_archive(
    layers: list[bytes],
    *,
    diff_ids: list[str] | None = None,
    tags: list[str] | None = None,
    config_data: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    """An archive as `docker save` made it before version 25."""
    data = config_data if config_data is not None else config(diff_ids or [digest(item) for item in layers])
    config_name = f"{digest(data)[7:]}.json"
    names = [f"layer{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": config_name, "RepoTags": tags if tags is not None else ["hostile:latest"], "Layers": names}]
    members = [entry(config_name, data), *(entry(name, item) for name, item in zip(names, layers, strict=True))]
    return b"".join(members) + extra + entry("manifest.json", json.dumps(manifest).encode()) + END


def oci_archive(blobs: dict[str, bytes], index: Any) -> bytes:
    """An OCI layout with these blobs (by digest) and this index."""
    members = [entry(f"blobs/{name.replace(':', '/')}", data) for name, data in blobs.items()]
    tail = [entry("index.json", json.dumps(index).encode()), entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]
    return b"".join(members + tail) + END


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """Points at `data`."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def oci_image(
    layers: list[bytes], *, layer_type: str = "application/vnd.oci.image.layer.v1.tar", **changes: Any
) -> bytes:
    """An OCI layout of one image; `changes` replace parts of its manifest."""
    data = config([digest(item) for item in layers])
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(data, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(item, layer_type) for item in layers],
    } | changes
    raw = json.dumps(manifest).encode()
    blobs = {digest(item): item for item in (*layers, data, raw)}
    return oci_archive(blobs, {"schemaVersion": 2, "manifests": [descriptor(raw, manifest["mediaType"])]})
