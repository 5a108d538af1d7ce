"""Fuzzing of everything that comes in: `python -m tests.fuzz.archives [SECONDS [SEED]]`, as root; a test runs it for a moment.

Archives and layers of both corpora are bent (bytes changed, cut, doubled, checksums made right again, compressed anew) and read
as engine and portal read them. Each must be read or refused with a sentence, soon; a layer that is unpacked must give the same
bytes again when its tar is made of its folder. Layers are unpacked in a child that is confined as the real one is.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import os
import random
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

from backports import zstd

from runtime.images import extract, extract_folders, pack
from runtime.images.confinement import confine
from runtime.images.extract_layer import LayerLimits
from runtime.images.format import ArchiveReader, BlobWriter, ImageFault, StoredBlob, images
from runtime.images.recipe import HEAD
from tests.corpus import tar
from tests.corpus.good import GOOD

SEED, SLOW_S, CHILD_S = 4, 60.0, 3.0
LIMITS = LayerLimits(max_bytes=32 << 20, max_entries=10_000)
PACK = (bytes, bytes, bytes, gzip.compress, zstd.compress, bz2.compress, lzma.compress)
FIELDS = (0, 1, 100, 108, 116, 124, 135, 136, 148, 156, 157, 257, 263, 345, 386, 398, 482, 483, 504)
SPARSE = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"900"}
LAYERS = [
    tar.layer(
        tar.folder("a"), tar.pax({"path": b"a/" + b"b" * 150, "SCHILY.xattr.user.x": b"1", "mtime": b"1.5"}),
        tar.entry("s", b"data" * 300), tar.entry("././@LongLink", b"c" * 200 + b"\0", kind=b"L"), tar.entry("cut", b"x"),
        tar.pax({"GNU.sparse.map": b"0,4,100,4", "GNU.sparse.size": b"200"}), tar.entry("sparse", b"headtail"),
        tar.pax(SPARSE), tar.entry("sparse1", tar.padded(b"2\n0\n4\n800\n4\n") + b"headtail"), tar.symlink("l", "a"),
    ),
    tar.layer(
        tar.folder("one"), tar.folder("two"), tar.symlink("l", "one"), tar.entry("l/x", b"first"), tar.symlink("l", "two"),
        tar.entry("l/x", b"second" * 200), tar.entry("one/x", b"third"), tar.hard_link("h", "one/x"), tar.entry("h", b"own"),
        tar.entry("one", b"a file now"), tar.entry("two/.wh.x"), tar.entry("two/.wh..wh..opq"), tar.entry("d", kind=b"3"),
    ),
]  # fmt: skip
ARCHIVES = [good.build() for good in GOOD if good.name != "layers_127"]


def bent(data: bytes, rng: random.Random) -> bytes:
    """The same with some fields or blocks changed; most headers get their checksum back."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        blocks = range(0, len(found) + 1, 512)
        heads = [block for block in blocks if found[block + 257 : block + 262] == b"ustar"]
        block = rng.choice(heads if heads and rng.random() < 0.8 else blocks)
        at, length = block + rng.choice(FIELDS), rng.choice((1, 1, 4, 12, 100))
        match rng.randrange(8):
            case 0:
                del found[block : block + 512 * rng.randint(1, 3)]
            case 1:
                other = rng.randrange(len(found) // 512 + 1) * 512
                found[block:block] = found[other : other + 512 * rng.randint(1, 4)]
            case 2:
                found[at : at + 1] = rng.choice(
                    (b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L", b"K", b"S", b"7", b"/")
                )
            case 3:
                found[at : at + length] = rng.choice(
                    (b"..", b"../", b"/", b".wh.", b"\0", b"777", b"\x80\0\0\1", b"\xff" * 12)
                )
            case 4 if rng.random() < 0.2:
                found = found[: rng.randrange(len(found) + 1)]
            case 5:
                found[at : at + length] = rng.randbytes(length)
            case 6:
                other = rng.choice(blocks)
                found[block : block + 512] = found[other : other + 512]
            case _:  # one entry takes another's name
                other = rng.choice(heads or blocks)
                found[block : block + 100] = found[other : other + 100]
        if rng.random() < 0.9 and found[block + 257 : block + 262] == b"ustar":
            found[block : block + 512] = tar.checksummed(found[block : block + 512])
    return bytes(found)


def shown(data: bytes) -> str:
    """Bytes for a message."""
    return base64.b64encode(zlib.compress(data)).decode()[:50_000]


class Thrown:
    """A sink that reads every blob and keeps none."""

    def open(self, name: str, size: int, kind: str) -> BlobWriter:
        return self

    def write(self, data: memoryview) -> None:
        assert len(data)

    def finish(self, blob: StoredBlob) -> None:
        assert blob.digest.startswith("sha256:")


def read_archive(data: bytes, rng: random.Random) -> bool:
    """Read it in pieces, as the portal does; False when it was refused."""
    step = rng.choice((100, 511, 4096, 1 << 20))
    reader = ArchiveReader(Thrown())
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
        reader.finish()
        for image in images(reader, "amd64"):
            assert len(image.config.diff_ids) == len(image.manifest.layers)
    except ImageFault:
        return False
    return True


def unpack_layer(plain: bytes, packed: bytes) -> bool:
    """In the confined child: unpack into a folder, make the tar again, compare; False when it was refused."""
    os.mkdir("layer", 0o755)  # noqa: PTH102
    root = os.open("layer", os.O_RDONLY | os.O_DIRECTORY)
    recipe, spill, source = (
        os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("recipe", "spill", "source")
    )
    try:
        os.write(source, packed)
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(recipe, HEAD.size, os.SEEK_SET)
        try:
            found = extract.unpack(root, source, LIMITS, recipe, spill)
        except (ImageFault, OSError):  # both are sentences, see extract.main
            return False
        assert found["tar_bytes"] == len(plain), "another length"
        again = bytearray()
        os.fchdir(root)
        pack.LayerTar(recipe, spill if os.fstat(spill).st_size else -1, again.extend).write()
        assert bytes(again) == plain, "the tar that was made again is another"
        return True
    finally:
        os.chdir("/")
        for fd in (root, recipe, spill, source):
            os.close(fd)
        top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        extract_folders.remove(top, b"layer")
        os.close(top)


def layers_in_children(seconds: float, seed: int) -> tuple[int, int]:
    """How many layers were tried and how many were unpacked; raises AssertionError with what a child says.

    A new child every few seconds: what a refusal leaves to the end of its process would fill a longer one.
    """
    tried = good = 0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        some, read = layers_in_child(min(left, CHILD_S), seed + tried)
        tried, good = tried + some, good + read
    return tried, good


def layers_in_child(seconds: float, seed: int, most: int = sys.maxsize) -> tuple[int, int]:
    """The same in one child."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        pid = os.fork()
        if not pid:
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                _layers(Path(folder), seconds, random.Random(seed), most)
                os._exit(0)
            except BaseException:  # noqa: BLE001  (a child ends here, whatever it was)
                os.write(2, traceback.format_exc().encode())
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        text = said.read().decode(errors="replace")
    assert status == 0, text[-8000:]
    tried, good = text.split()[-2:]
    return int(tried), int(good)


def _layers(folder: Path, seconds: float, rng: random.Random, most: int) -> None:
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    folder.chmod(0o777)
    confine(root, LIMITS.max_bytes, extract.KEPT_CAPABILITIES)
    os.chdir("/")
    tried = good = 0
    end = time.monotonic() + seconds
    while tried < most and time.monotonic() < end:
        plain = bent(rng.choice(LAYERS), rng)
        packed = rng.choice(PACK)(plain)
        started = time.perf_counter()
        try:
            good += unpack_layer(plain, packed)
            assert time.perf_counter() - started < SLOW_S, "it took too long"
        except BaseException as error:
            error.add_note(f"layer, by zlib and base64: {shown(plain)}")
            raise
        tried += 1
    os.write(1, b"%d %d\n" % (tried, good))


def archives(seconds: float, seed: int, most: int = sys.maxsize) -> tuple[int, int]:
    """How many archives were tried and how many were read."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    tried = good = 0
    while tried < most and time.monotonic() < end:
        data = rng.choice(PACK)(bent(rng.choice(ARCHIVES), rng))
        if rng.random() < 0.2:
            data = bent(data, rng)
        started = time.perf_counter()
        try:
            good += read_archive(data, rng)
            assert time.perf_counter() - started < SLOW_S, "it took too long"
        except BaseException as error:
            error.add_note(f"archive, by zlib and base64: {shown(data)}")
            raise
        tried += 1
    return tried, good


def main(argv: list[str]) -> None:
    """For so many seconds, half for each; says how many were tried."""
    seconds, seed = float(argv[0]) if argv else 10.0, int(argv[1]) if len(argv) > 1 else SEED
    tried, good = archives(seconds / 2, seed)
    print(f"{tried} archives, {good} of them read, the others refused")
    tried, good = layers_in_children(seconds / 2, seed)
    print(f"{tried} layers, {good} of them unpacked and made again, the others refused")


if __name__ == "__main__":
    main(sys.argv[1:])
