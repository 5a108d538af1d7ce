"""Layers that must be refused: one function each, its docstring says what it tries."""

from __future__ import annotations

from tests.corpus import tar
from tests.corpus.case import layer_refused


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
