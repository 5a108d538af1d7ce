"""A store on a disk that fills up: a sentence, nothing half-made, and it works again once there is room."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from runtime.images.format import ImageFault
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar
from tests.runtime.root.images.conftest import tree
from tests.runtime.root.images.mounting import mounted

pytestmark = pytest.mark.root

MB = 1 << 20
BIG = tar.docker_archive([tar.layer(tar.entry("big", bytes([7]) * 40 * MB))], tags=["big:v1"])
SMALL = tar.docker_archive([tar.layer(tar.entry("small", b"x"))], tags=["small:v1"])


def test_a_load_onto_a_full_disk(driver: Overlay2, tmp_path: Path) -> None:
    with mounted(driver.prepare("disk", [], size_bytes=30 * MB), tmp_path / "root") as disk:
        store = ImageStore(disk / "images", Overlay2(disk / "store"))
        before = tree(disk)
        with pytest.raises(ImageFault, match="disk is full"):
            store.load(io.BytesIO(BIG))
        assert tree(disk) == before
        store.load(io.BytesIO(SMALL))
        driver.set_quota("disk", 100 * MB)
        store.load(io.BytesIO(BIG))
        store.close()
        assert {name for image in store.list() for name in image.repo_tags} == {"big:v1", "small:v1"}
