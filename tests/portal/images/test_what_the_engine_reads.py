"""The portal takes every archive that the engine reads, whole, and what it keeps of it is an image the engine can pull."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.images.blobs import BlobStore
from portal.images.faults import ImageRefused
from portal.images.ingest import Ingest
from runtime.images.format import Manifest, parse_config, parse_manifest
from tests.corpus.good import GOOD, Good


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_an_archive_is_kept_whole(tmp_path: Path, good: Good) -> None:
    store, data = BlobStore(tmp_path / "blobs"), good.build()
    with Ingest(store, 1 << 30) as ingest:
        for at in range(0, len(data), 3000):
            ingest.feed(data[at : at + 3000])
        if good.images > 1:
            with pytest.raises(ImageRefused, match="holds 2 images"):
                ingest.finish()
            return
        prepared = ingest.finish()
        prepared.commit(store)
    manifest = parse_manifest(store.read(prepared.image.manifest.digest))
    assert isinstance(manifest, Manifest)
    config = parse_config(store.read(manifest.config.digest))
    assert len(config.diff_ids) == len(manifest.layers) > 0
    assert {len(store.read(layer.digest)) for layer in manifest.layers} == {layer.size for layer in manifest.layers}
    assert prepared.image.tags == good.tags
