"""Whatever bytes come, a parser says what is wrong with them or reads them: no other error, no endless loop."""

from __future__ import annotations

import gzip
import itertools
import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.images.format import (
    ArchiveReader,
    ImageFault,
    TarHeader,
    TarReader,
    Unpacker,
    images,
    parse_config,
    parse_manifest,
    parse_reference,
)
from tests.corpus import tar

FIELDS = st.sampled_from([0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 345, 386, 482, 483, 512, 1024])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    *(
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "platform",
        "rootfs",
        "diff_ids",
    ),
    *("os", "architecture", "Config", "Layers", "RepoTags", "Env", "Cmd", "Entrypoint", "ExposedPorts", "Healthcheck"),
    *("Labels", "history", "annotations"),
)
DOCUMENT = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), max_size=6
)


class Collector:
    """Keeps what a tar reader finds, and checks that it keeps its word."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []
        self._left = 0
        self._data = bytearray()
        self._name = b""

    def entry(self, header: TarHeader) -> None:
        assert header.size >= 0 and not self._left
        self._name, self._left = header.name, header.size
        self._data.clear()

    def data(self, chunk: memoryview) -> None:
        self._left -= len(chunk)
        self._data += chunk

    def end(self) -> None:
        assert self._left == 0
        self.found.append((self._name, bytes(self._data)))


class Nowhere:
    """A sink that wants no blob."""

    def open(self, name: str, size: int, kind: str) -> None:
        return None


GOOD = tar.layer(
    tar.folder("a"),
    tar.pax({"path": b"a/" + b"b" * 150, "SCHILY.xattr.user.x": b"1", "mtime": b"1.5"}),
    tar.entry("short", b"data" * 300),
    tar.entry("././@LongLink", b"c" * 200 + b"\0", kind=b"L"),
    tar.entry("cut", b"x"),
    tar.pax({"GNU.sparse.map": b"0,4,100,4", "GNU.sparse.size": b"200"}),
    tar.entry("sparse", b"headtail"),
    tar.pax({"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"900"}),
    tar.entry("sparse1", tar.padded(b"2\n0\n4\n800\n4\n") + b"headtail"),
    tar.symlink("l", "a"),
)
ARCHIVE = tar.oci_image([GOOD])


def read_tar(data: bytes, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    collector = Collector()
    reader = TarReader(collector)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
    reader.close()
    return collector.found


@given(st.lists(st.integers(min_value=0), max_size=12))
def test_a_tar_reads_the_same_however_it_is_cut_into_pieces(cuts: list[int]) -> None:
    assert read_tar(GOOD, cuts) == read_tar(GOOD, [])
    assert [name for name, _ in read_tar(GOOD, cuts)][1:3] == [b"a/" + b"b" * 150, b"c" * 200]


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(FIELDS, st.integers(0, len(GOOD) // 512), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4
    )
)
def test_a_damaged_tar_is_read_or_refused(changes: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(GOOD)
    for offset, block, value in changes:
        at = (block * 512 + offset) % len(data)
        data[at : at + len(value)] = value
        start = at // 512 * 512
        if data[start + 257 : start + 262] == b"ustar":  # get past the checksum, to the fields
            data[start : start + 512] = tar.checksummed(data[start : start + 512])
    with suppress(ImageFault):
        read_tar(bytes(data), [777])


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused_as_an_archive(data: bytes) -> None:
    for packed in (data, gzip.compress(data), gzip.compress(data)[:-3], b"\x28\xb5\x2f\xfd" + data):
        reader = ArchiveReader(Nowhere())
        with suppress(ImageFault):
            reader.feed(packed)
            reader.finish()
            images(reader, "amd64")


@settings(max_examples=200)
@given(st.integers(0, len(ARCHIVE) - 1), st.binary(min_size=1, max_size=20))
def test_a_changed_archive_is_refused_or_the_same_image(at: int, value: bytes) -> None:
    data = bytearray(ARCHIVE)
    data[at : at + len(value)] = value
    reader = ArchiveReader(Nowhere())
    with suppress(ImageFault):
        reader.feed(bytes(data))
        reader.finish()
        (image,) = images(reader, "amd64")
        assert image.config.diff_ids == (tar.digest(GOOD),)


@settings(max_examples=300)
@given(DOCUMENT)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    for parse in (parse_config, parse_manifest):
        with suppress(ImageFault):
            parse(data)
    members = [tar.entry(name, data) for name in ("index.json", "manifest.json")]
    for member in members:
        reader = ArchiveReader(Nowhere())
        reader.feed(member + tar.END)
        reader.finish()
        with suppress(ImageFault):
            images(reader, "amd64")


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{1,10})?(@sha256:[0-9a-f]{64})?"))
def test_a_name_is_refused_or_reads_back_as_itself(text: str) -> None:
    with suppress(ImageFault):
        found = parse_reference(text)
        again = parse_reference(found.familiar)
        assert (again.domain, again.path, again.digest) == (found.domain, found.path, found.digest)


@given(st.binary(max_size=5000), st.integers(1, 400), st.booleans())
def test_a_compressed_stream_unpacks_the_same_in_any_pieces(data: bytes, step: int, twice: bool) -> None:
    packed = gzip.compress(data) + (gzip.compress(data) if twice else b"")
    unpacker = Unpacker()
    found = b"".join(piece for at in range(0, len(packed), step) for piece in unpacker.feed(packed[at : at + step]))
    found += b"".join(unpacker.close())
    assert found == data * (2 if twice else 1)
