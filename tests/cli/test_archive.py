"""What the command line leaves out of an archive, and that the rest is what the portal understands."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Collection
from pathlib import Path

import pytest

from moorage.archive import Payload, without_known
from scripts.demo_image import Contents, ballast_layer, build
from tests.portal.images import archives


def image(seed: int = 1) -> bytes:
    buffer = io.BytesIO()
    build(buffer, Contents(size_mb=2, layer=ballast_layer(1, seed)), tag="shop:1")
    return buffer.getvalue()


def sent(payload: Payload) -> bytes:
    """All of it, read in odd pieces."""
    found, step = b"", 99_991
    while piece := payload.read(len(found), step):
        found += piece
    assert len(found) == payload.size
    return found


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def test_known_blobs_are_left_out_and_documents_never() -> None:
    asked: list[str] = []

    def known(digests: Collection[str]) -> list[str]:
        asked.extend(digests)
        return asked[:2]

    data = image()
    payload = without_known(io.BytesIO(data), known)
    assert len(asked) == 3  # layers; config and manifest are small
    gone = {f"blobs/{digest.replace(':', '/')}" for digest in asked[:2]}
    assert set(names(data)) - set(names(sent(payload))) == gone
    assert payload.spared_bytes == sum(len(archives.members(data)[name]) for name in gone)


def test_layers_of_an_old_archive_become_links() -> None:
    data = archives.old_style(image())
    payload = without_known(io.BytesIO(data), lambda digests: digests)
    with tarfile.open(fileobj=io.BytesIO(sent(payload))) as tar:
        links = {info.name: info.linkname for info in tar if info.issym()}
    assert len(links) == 3 and payload.size < 20_000
    assert all(target.startswith("../blobs/sha256/") for target in links.values())


def test_an_old_layer_that_is_compressed_is_sent() -> None:
    """Its digest is not the diff id."""
    files = archives.members(archives.old_style(image()))
    files["layer1/layer.tar"] = gzip.compress(files["layer1/layer.tar"], 1)
    payload = without_known(io.BytesIO(archives.packed(files)), lambda digests: digests)
    with tarfile.open(fileobj=io.BytesIO(sent(payload))) as tar:
        assert [info.isfile() for info in tar if info.name.startswith("layer")] == [False, True, False]


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive at all" * 100, gzip.compress(image(), 1), image()[:700_000]],
    ids=["empty", "text", "gzip", "cut"],
)
def test_what_cannot_be_read_is_sent_as_it_is(data: bytes, tmp_path: Path) -> None:
    payload = without_known(io.BytesIO(data), lambda digests: [])
    assert sent(payload) == data


def test_nothing_known_changes_nothing() -> None:
    data = image()
    assert sent(without_known(io.BytesIO(data), lambda digests: ())) == data
