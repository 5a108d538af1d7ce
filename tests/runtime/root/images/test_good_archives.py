"""Every archive of the good corpus is read, its files are where they belong, and what is saved of it is the same image again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from runtime.images.records import LoadResult
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus.good import GOOD, Good
from tests.runtime.root.images.mounting import mounted

pytestmark = pytest.mark.root


COMPRESSED = {"layers_by_zstd_chunked", "layers_by_estargz", "platform_from_a_manifest_list"}  # or of Docker's types
OUT = {"oci_layout", "docker_before_1_10", "docker_1_10_to_24", "two_images", "root_file_system", "devices_in_a_layer"}
OUT |= COMPRESSED


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_is_read_and_what_goes_out_of_it_comes_in_again(
    store: ImageStore, driver: Overlay2, state: Path, tmp_path: Path, good: Good
) -> None:
    results = store.load(io.BytesIO(good.build()))
    assert len(results) == good.images
    assert tuple(name for result in results for name in result.names) == good.tags
    first = results[0].image
    with mounted(driver.prepare("c1", first.chain_ids), tmp_path / "root") as root:
        assert {name: (root / name).read_bytes() for name in good.files} == good.files
        assert not any((root / name).exists() for name in good.gone)
        assert not any(path.is_block_device() for path in root.rglob("*"))
    if good.name in OUT:
        _goes_out_and_comes_in_again(store, state, good, results)


def _goes_out_and_comes_in_again(store: ImageStore, state: Path, good: Good, results: list[LoadResult]) -> None:
    names = good.tags or (results[0].image.id,)
    saved = b"".join(store.save(names))
    other = ImageStore(state / "other", Overlay2(state / "other-store"), architecture="amd64")
    again = other.load(io.BytesIO(saved))
    assert {result.image.id for result in again} == {result.image.id for result in results}
    assert b"".join(other.save(names)) == saved
    if good.name not in COMPRESSED:
        assert {result.image.manifest_digest for result in again} == {
            result.image.manifest_digest for result in results
        }
    other.close()
