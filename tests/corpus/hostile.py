"""Archives that must be refused: one function each, its docstring says what it tries, `@refused` with which words.

`python -m tests.corpus.hostile FOLDER` writes them all as files.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backports import zstd

from tests.corpus import tar


@dataclass(frozen=True)
class Case:
    """One hostile archive and a part of the sentence that refuses it."""

    name: str
    build: Callable[[], bytes]
    sentence: str


CASES: list[Case] = []
type Build = Callable[[], bytes]


def refused(sentence: str) -> Callable[[Build], Build]:
    """Put a builder of a whole archive into the corpus."""

    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, build, sentence))
        return build

    return add


def layer_refused(sentence: str) -> Callable[[Build], Build]:
    """Put a builder of one layer into the corpus, inside an otherwise good archive."""

    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, lambda: tar.docker_archive([build()]), sentence))
        return build

    return add


GOOD_LAYER = tar.layer(tar.folder("etc"), tar.entry("etc/motd", b"hello\n"))


@layer_refused("leads out of the layer")
def parent_in_a_name() -> bytes:
    """Climbs with ".." in the middle of a name."""
    return tar.layer(tar.entry("usr/../../../etc/canary", b"x"))


@layer_refused("leads out of the layer")
def parent_in_a_long_name() -> bytes:
    """The same through an extended header."""
    return tar.layer(tar.pax({"path": b"../canary"}), tar.entry("fine", b"x"))


@layer_refused("leads out of the layer")
def through_a_climbing_link() -> bytes:
    """A link to "../../.." and a file through it."""
    return tar.layer(tar.symlink("out", "../../.."), tar.entry("out/canary", b"x"))


@layer_refused("leads out of the layer")
def through_an_absolute_link() -> bytes:
    """A link to /etc and a file through it."""
    return tar.layer(tar.symlink("out", "/etc"), tar.entry("out/canary", b"x"))


@layer_refused("leads out of the layer")
def through_a_chain_of_links() -> bytes:
    """Two harmless-looking links that climb only together."""
    return tar.layer(
        tar.folder("a"), tar.symlink("a/b", ".."), tar.symlink("c", "a/b/../.."), tar.entry("c/canary", b"x")
    )


@layer_refused("leads through more than")
def through_a_loop_of_links() -> bytes:
    """Two links that lead to each other."""
    return tar.layer(tar.symlink("a", "b"), tar.symlink("b", "a"), tar.entry("a/x", b"x"))


@layer_refused("leads out of the layer")
def whiteout_through_a_link() -> bytes:
    """Hides a file of the host's folder behind a link."""
    return tar.layer(tar.symlink("out", "../.."), tar.entry("out/.wh.canary"))


@layer_refused("leads out of the layer")
def opaque_through_a_link() -> bytes:
    """Marks a folder of the host opaque."""
    return tar.layer(tar.symlink("out", "../.."), tar.entry("out/.wh..wh..opq"))


@layer_refused("whiteout")
def whiteout_of_nothing() -> bytes:
    """A whiteout of the empty name."""
    return tar.layer(tar.entry(".wh."))


@layer_refused("whiteout")
def whiteout_of_the_parent() -> bytes:
    """A whiteout of ".."."""
    return tar.layer(tar.folder("a"), tar.entry("a/.wh..."))


@layer_refused("leads out of the layer")
def hard_link_out() -> bytes:
    """A hard link to a file of the host."""
    return tar.layer(tar.hard_link("passwd", "../../../../etc/passwd"))


@layer_refused("leads out of the layer")
def hard_link_through_a_link() -> bytes:
    """The same through a symbolic link."""
    return tar.layer(tar.symlink("out", "/etc"), tar.hard_link("passwd", "out/passwd"))


@layer_refused("which it does not have")
def hard_link_to_nothing() -> bytes:
    """A hard link to a name that the layer lacks."""
    return tar.layer(tar.hard_link("a", "b"))


@layer_refused("which is no file")
def hard_link_to_a_folder() -> bytes:
    """A hard link to a folder."""
    return tar.layer(tar.folder("b"), tar.hard_link("a", "b"))


@layer_refused("device node")
def block_device() -> bytes:
    """The host's disk."""
    return tar.layer(tar.entry("dev/vda", kind=b"4"))


@layer_refused("device node")
def character_device() -> bytes:
    """A character device 0/0, which overlay takes for a whiteout."""
    return tar.layer(tar.entry("dev/mem", kind=b"3"))


@layer_refused("65535 is the greatest id")
def great_user_id() -> bytes:
    """An owner outside every container's range."""
    return tar.layer(tar.entry("file", b"x", uid=65536))


@layer_refused("65535 is the greatest id")
def great_group_id() -> bytes:
    """The same by an extended header."""
    return tar.layer(tar.pax({"gid": b"4294967295"}), tar.entry("file", b"x"))


@layer_refused("which is no folder")
def below_a_file() -> bytes:
    """An entry below a regular file."""
    return tar.layer(tar.entry("file", b"x"), tar.entry("file/x", b"x"))


@layer_refused("without a name")
def file_without_a_name() -> bytes:
    """A regular file in the place of the root."""
    return tar.layer(tar.entry("./", b"", kind=b"2", link=b"/etc"))


@layer_refused("bytes long")
def long_path() -> bytes:
    """A path above PATH_MAX."""
    return tar.layer(tar.pax({"path": b"a/" * 2500 + b"b"}), tar.entry("x"))


@layer_refused("folders deep")
def deep_path() -> bytes:
    """Three hundred folders."""
    return tar.layer(tar.pax({"path": b"a/" * 300 + b"b"}), tar.entry("x"))


@layer_refused("longer than 255 bytes")
def long_name() -> bytes:
    """A component above NAME_MAX."""
    return tar.layer(tar.pax({"path": b"a" * 256}), tar.entry("x"))


@layer_refused("NUL")
def nul_in_a_name() -> bytes:
    """What a C program would read as another name."""
    return tar.layer(tar.pax({"path": b"fine\0/../../canary"}), tar.entry("x"))


@layer_refused("empty or too long")
def empty_link() -> bytes:
    """A symbolic link to nothing."""
    return tar.layer(tar.symlink("a", ""))


@layer_refused("security.capability")
def damaged_capability() -> bytes:
    """A file capability the kernel refuses."""
    return tar.layer(tar.pax({"SCHILY.xattr.security.capability": b"\xff" * 20}), tar.entry("x", b"x"))


@layer_refused("checksum")
def wrong_checksum() -> bytes:
    """A header that was changed."""
    block = bytearray(tar.header(b"x"))
    block[0] ^= 1
    return tar.layer(tar.entry("good"), bytes(block))


@layer_refused("negative")
def negative_size() -> bytes:
    """A size below zero in base-256."""
    return tar.layer(tar.entry("x", size_field=b"\xff" * 12))


@layer_refused("octal size")
def size_in_words() -> bytes:
    """A size that is no number."""
    return tar.layer(tar.entry("x", size_field=b"0x7fffffff\0\0"))


@layer_refused("the limit")
def enormous_file() -> bytes:
    """A file of 2^62 bytes."""
    return tar.layer(tar.entry("x", size_field=b"\x80" + (1 << 62).to_bytes(11, "big")))


@layer_refused("cut off")
def cut_off_layer() -> bytes:
    """A layer that ends in a file."""
    return tar.entry("x", b"x" * 2000)[:1024]


@layer_refused("unknown type")
def unknown_type() -> bytes:
    """A type flag of no standard."""
    return tar.layer(tar.entry("x", kind=b"Z"))


@layer_refused("malformed extended header")
def lying_extended_header() -> bytes:
    """A record longer than its header."""
    return tar.layer(tar.entry("p", b"99 path=x\n", kind=b"x"), tar.entry("x"))


@layer_refused("headers of one entry")
def enormous_extended_header() -> bytes:
    """Two megabytes of extended header."""
    return tar.layer(tar.entry("p", tar.pax_record("comment", b"x" * 2_000_000), kind=b"x"), tar.entry("x"))


@layer_refused("sparse map")
def overlapping_sparse_file() -> bytes:
    """Pieces that overlap."""
    records = {"GNU.sparse.map": b"0,4,2,4", "GNU.sparse.size": b"100"}
    return tar.layer(tar.pax(records), tar.entry("x", b"12345678"))


@layer_refused("sparse map")
def sparse_file_beyond_its_end() -> bytes:
    """A piece outside the file."""
    records = {"GNU.sparse.map": b"1000,8", "GNU.sparse.size": b"100"}
    return tar.layer(tar.pax(records), tar.entry("x", b"12345678"))


@layer_refused("the limit")
def enormous_sparse_file() -> bytes:
    """A file of 2^60 bytes in eight."""
    records = {"GNU.sparse.map": b"0,8", "GNU.sparse.size": b"%d" % (1 << 60)}
    return tar.layer(tar.pax(records), tar.entry("x", b"12345678"))


def _bomb_layer(megabytes: int) -> tuple[bytes, list[bytes]]:
    piece = bytes(1 << 20)
    return tar.header(b"zeros", size=megabytes << 20), [piece] * megabytes


@refused("bomb")
def gzip_bomb() -> bytes:
    """400 MB of zeros in 400 kB, as many gzip members."""
    head, pieces = _bomb_layer(400)
    packed = gzip.compress(head) + gzip.compress(pieces[0]) * len(pieces) + gzip.compress(tar.END)
    return tar.docker_archive([packed], diff_ids=[tar.digest(b"")])


@refused("bomb")
def zstd_bomb() -> bytes:
    """The same by zstd, which packs far better."""
    head, pieces = _bomb_layer(400)
    packed = zstd.compress(head) + zstd.compress(pieces[0]) * len(pieces) + zstd.compress(tar.END)
    return tar.docker_archive([packed], diff_ids=[tar.digest(b"")])


@refused("bomb")
def bomb_around_the_archive() -> bytes:
    """The whole archive is the bomb."""
    head, pieces = _bomb_layer(400)
    return gzip.compress(head) + gzip.compress(pieces[0]) * len(pieces)


@refused("stream is damaged")
def damaged_gzip() -> bytes:
    """A bit of the compressed layer is flipped."""
    packed = bytearray(gzip.compress(GOOD_LAYER * 20))
    packed[len(packed) // 2] ^= 0x55
    return tar.docker_archive([bytes(packed)], diff_ids=[tar.digest(GOOD_LAYER * 20)])


@refused("cut off")
def cut_off_gzip() -> bytes:
    """A compressed layer without its end."""
    return tar.docker_archive([gzip.compress(GOOD_LAYER)[:-12]], diff_ids=[tar.digest(GOOD_LAYER)])


@refused("followed by something else")
def gzip_with_a_tail() -> bytes:
    """Something hidden behind the compressed layer."""
    return tar.docker_archive([gzip.compress(GOOD_LAYER) + b"hidden bytes"], diff_ids=[tar.digest(GOOD_LAYER)])


@refused("config says")
def wrong_diff_id() -> bytes:
    """A plain layer that is not the one the config names."""
    return tar.docker_archive([GOOD_LAYER], diff_ids=[tar.digest(b"another")])


@refused("config says")
def wrong_diff_id_of_a_compressed_layer() -> bytes:
    """The same where only unpacking tells."""
    return tar.docker_archive([gzip.compress(GOOD_LAYER)], diff_ids=[tar.digest(b"another")])


@refused("it is damaged")
def blob_under_another_digest() -> bytes:
    """A blob whose name is another's digest."""
    data = bytearray(tar.oci_image([GOOD_LAYER]))
    at = data.index(b"hello\n")
    data[at : at + 6] = b"HELLO\n"
    return bytes(data)


@refused("it is damaged")
def config_under_another_digest() -> bytes:
    """A config whose name is another's digest."""
    return tar.docker_archive([GOOD_LAYER]).replace(b"/bin/true", b"/bin/evil")


@refused("does not have")
def missing_layer() -> bytes:
    """A manifest that names a layer which is not there."""
    return tar.docker_archive([GOOD_LAYER]).replace(b'["layer0/layer.tar"]', b'["layerX/layer.tar"]')


@refused("config names 2 layers")
def too_few_layers() -> bytes:
    """Config and manifest do not agree."""
    return tar.docker_archive([GOOD_LAYER], config_data=tar.config([tar.digest(GOOD_LAYER)] * 2))


@refused("127 is the limit")
def too_many_layers() -> bytes:
    """A thousand layers."""
    return tar.oci_image([GOOD_LAYER] * 1000)


@refused("should be a layer")
def document_as_a_layer() -> bytes:
    """JSON where a layer belongs."""
    return tar.docker_archive([b'{"a": 1}'])


@refused("leads out of it")
def member_that_climbs() -> bytes:
    """A member of the archive itself that climbs."""
    return tar.docker_archive([GOOD_LAYER], extra=tar.entry("../canary", b"x"))


@refused("leads out of it")
def absolute_member() -> bytes:
    """A member of the archive with an absolute name."""
    return tar.docker_archive([GOOD_LAYER], extra=tar.entry("/etc/canary", b"x"))


@refused("which is a char device")
def device_in_the_archive() -> bytes:
    """A device beside the layers."""
    return tar.docker_archive([GOOD_LAYER], extra=tar.entry("null", kind=b"3"))


@refused("twice")
def member_twice() -> bytes:
    """Two layers of one name."""
    return tar.docker_archive([GOOD_LAYER], extra=tar.entry("layer0/layer.tar", GOOD_LAYER))


@refused("entries, which is the limit")
def too_many_members() -> bytes:
    """Twenty thousand files in the archive."""
    return tar.docker_archive([GOOD_LAYER], extra=b"".join(tar.entry(f"x/{n}") for n in range(20_000)))


@refused("is not JSON")
def endlessly_nested_document() -> bytes:
    """JSON that recurses."""
    return tar.entry("manifest.json", b"[" * 100_000) + tar.END


@refused("32 MiB")
def too_many_documents() -> bytes:
    """Documents that would fill the memory."""
    document = b'{"a":"' + b"x" * 4_000_000 + b'"}'
    return b"".join(tar.entry(f"{n}.json", document) for n in range(10)) + tar.END


@refused("not an image name")
def hostile_tag() -> bytes:
    """A tag that is a path."""
    return tar.docker_archive([GOOD_LAYER], tags=["../../etc/passwd:x"])


@refused("sha256")
def other_digest_algorithm() -> bytes:
    """A digest nobody checks here."""
    index = {"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "md5:" + "0" * 32, "size": 1}]}
    return tar.oci_archive({}, index)


@refused("sha256 digest")
def path_as_a_digest() -> bytes:
    """A digest that is a path."""
    index = {"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "sha256:../../../etc/passwd", "size": 1}]}
    return tar.oci_archive({}, index)


@refused("bytes; it has")
def lying_size() -> bytes:
    """A descriptor with another size than the blob's."""
    config = tar.config([])
    raw = {
        "schemaVersion": 2,
        "config": tar.descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [],
    }
    data = json.dumps(raw).encode()
    entry = tar.descriptor(data, "application/vnd.oci.image.manifest.v1+json") | {"size": 3}
    return tar.oci_archive(
        {tar.digest(data): data, tar.digest(config): config}, {"schemaVersion": 2, "manifests": [entry]}
    )


@refused("an artifact, not an image")
def artifact() -> bytes:
    """Something else that registries hold."""
    return tar.oci_image([GOOD_LAYER], config=tar.descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json"))


@refused("may not be distributed")
def foreign_layer() -> bytes:
    """A layer that is to be fetched from elsewhere."""
    return tar.oci_image([GOOD_LAYER], layer_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")


@refused("schema 1")
def manifest_of_schema_1() -> bytes:
    """The manifest of 2014."""
    return tar.oci_image([GOOD_LAYER], schemaVersion=1)


@refused("Only Linux images")
def windows_image() -> bytes:
    """An image for Windows."""
    data = tar.config([tar.digest(GOOD_LAYER)], os="windows")
    return tar.docker_archive([GOOD_LAYER], config_data=data)


@refused("this host is linux/")
def image_for_another_machine() -> bytes:
    """An image for another processor."""
    return tar.docker_archive([GOOD_LAYER], config_data=tar.config([tar.digest(GOOD_LAYER)], architecture="pdp11"))


@refused("no image")
def archive_without_an_image() -> bytes:
    """A tar of something else."""
    return GOOD_LAYER


@refused("checksum")
def no_archive() -> bytes:
    """A text."""
    return b"#!/bin/sh\necho hello\n" * 100


@refused("cut off")
def cut_off_archive() -> bytes:
    """An upload that broke."""
    return tar.docker_archive([GOOD_LAYER])[:3000]


@refused("empty")
def empty_archive() -> bytes:
    """Nothing at all."""
    return b""


def main() -> None:
    """Write the corpus into a folder."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (target / f"{case.name}.tar").write_bytes(case.build())


if __name__ == "__main__":
    main()
