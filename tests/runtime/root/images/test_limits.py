"""Each limit of a layer: at it a layer is unpacked, one above it is refused with the figure, and nothing of it stays.

Ratios are in the corpus of hostile archives (`gzip_bomb` and others).
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from runtime.images.extract_layer import LayerLimits
from runtime.images.format import ImageFault
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar

pytestmark = pytest.mark.root

TIGHT = LayerLimits(max_bytes=1000, max_entries=3)


def files(count: int, size: int) -> bytes:
    return tar.layer(*(tar.entry(f"f{number}", b"x" * size) for number in range(count)))


def path(*lengths: int) -> bytes:
    return tar.layer(tar.pax({"path": b"/".join(b"a" * length for length in lengths)}), tar.entry("x"))


def sparse(size: int) -> bytes:
    return tar.layer(tar.pax({"GNU.sparse.map": b"0,1", "GNU.sparse.size": b"%d" % size}), tar.entry("x", b"1"))


@pytest.mark.parametrize(
    ("limits", "fits", "too_much", "sentence"),
    [
        (TIGHT, files(3, 9), files(4, 9), "more than 3 entries"),
        (TIGHT, files(2, 500), files(2, 501), "unpacks to more than 1 kB"),
        (TIGHT, files(1, 1000), files(1, 1001), "a file is 1 kB long"),
        (TIGHT, sparse(1000), sparse(1001), "a file is 1 kB long"),
        (LayerLimits(), path(255), path(256), "longer than 255 bytes"),
        (LayerLimits(), path(*[1] * 256), path(*[1] * 257), "257 folders deep"),
        (LayerLimits(), path(*[255] * 16), path(*[255] * 15, 254, 1), "4096 bytes long"),
    ],
    ids=["entries", "bytes", "one file", "a sparse file", "a name", "depth", "a path"],
)
def test_a_layer_is_held_to(state: Path, limits: LayerLimits, fits: bytes, too_much: bytes, sentence: str) -> None:
    store = ImageStore(state / "images", Overlay2(state / "store"), limits=limits, architecture="amd64")
    with pytest.raises(ImageFault) as caught:
        store.load(io.BytesIO(tar.docker_archive([too_much])))
    assert sentence.lower() in str(caught.value).lower()
    assert list((state / "store/l").iterdir()) == [state / "store/l/empty"] and not list(
        (state / "images/recipes").iterdir()
    )
    store.load(io.BytesIO(tar.docker_archive([fits])))
    store.close()
