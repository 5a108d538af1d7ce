"""Archives that must be refused: one function each, its docstring says what it tries, `@refused` with which words.

`python -m tests.corpus.hostile FOLDER` writes them all as files, those of hostile_layers too.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from backports import zstd

from tests.corpus import hostile_layers, tar
from tests.corpus.case import CASES, GOOD_LAYER, Case, refused

__all__ = ["CASES", "Case", "hostile_layers"]


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
    return tar.layer(tar.entry("notes/readme", b"hello"))


@refused("entries, which is the limit")
def nothing_but_the_top() -> bytes:
    """Six megabytes of entries without a name, which tell nothing of what the archive is."""
    return tar.layer(tar.folder("./") * 12_000)


@refused("65535 is the greatest id")
def root_file_system_with_great_ids() -> bytes:
    """A root file system of a machine whose ids go further than a container's."""
    return tar.layer(tar.folder("etc"), tar.entry("etc/file", b"x", uid_field=b"\x80\0\0\0\0\1\0\0"))


@refused("checksum")
def root_file_system_that_is_damaged() -> bytes:
    """It begins well."""
    return tar.folder("bin") + b"\1" * 1024


@refused("more than 127 layers")
def legacy_layers_in_a_ring() -> bytes:
    """An archive of the oldest format whose layer is its own parent."""
    layer_id = "a" * 64
    document = json.dumps({"id": layer_id, "parent": layer_id}).encode()
    return tar.layer(
        tar.entry(f"{layer_id}/json", document), tar.entry("repositories", b'{"a":{"b":"%s"}}' % layer_id.encode())
    )


@refused("lacks")
def legacy_layer_without_its_tar() -> bytes:
    """A layer of the oldest format of which only the description is there."""
    return tar.layer(tar.entry(f"{'b' * 64}/json", b"{}"))


@refused("does not say what it unpacks to")
def legacy_layer_that_is_compressed() -> bytes:
    """Of the oldest format, whose layers have no digest."""
    return tar.layer(
        tar.entry(f"{'b' * 64}/json", b"{}"), tar.entry(f"{'b' * 64}/layer.tar", gzip.compress(GOOD_LAYER))
    )


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
