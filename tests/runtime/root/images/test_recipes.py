"""A layer's tar is made again of its unpacked folder, byte for byte, whatever the tar was like."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.images.format import ImageFault, digest_of
from runtime.images.recipes import Recipes
from tests.corpus import tar
from tests.runtime.root.images.conftest import packed, unpacked
from tests.runtime.root.images.test_load_to_mount import LOWER, UPPER

pytestmark = pytest.mark.root

SPARSE = {"GNU.sparse.map": b"0,4,3000000,4", "GNU.sparse.size": b"4000000"}
LAYERS = {
    "everything": LOWER,
    "whiteouts, sparse files, long names": UPPER,
    "a file three times": tar.layer(tar.entry("a", b"1" * 700), tar.entry("a", b"2"), tar.entry("a", b"3" * 9000)),
    "a file, a folder, a file": tar.layer(
        tar.entry("a", b"file"), tar.entry("a/", kind=b"5"), tar.entry("a/in", b"x" * 600), tar.entry("a", b"again")
    ),
    "a hard link that is replaced, and its target": tar.layer(
        tar.entry("a", b"content" * 99), tar.hard_link("b", "a"), tar.entry("b", b"own"), tar.entry("b", b"other"),
        tar.entry("a", b"new"),
    ),
    "through a link that changes": tar.layer(
        tar.folder("one"), tar.folder("two"), tar.symlink("l", "one"), tar.entry("l/x", b"first"),
        tar.symlink("l", "two"), tar.entry("l/x", b"second"), tar.entry("one/x", b"third"),
    ),
    "a sparse file that is replaced": tar.layer(
        tar.pax(SPARSE), tar.entry("s", b"headtail"), tar.pax(SPARSE), tar.entry("s", b"HEADTAIL"), tar.entry("s", b"")
    ),
    "a whiteout with content": tar.layer(tar.entry("d/.wh.x", b"hidden" * 300)),
    "padding that is not zero": tar.header(b"f", size=3) + b"abc" + b"?" * 509 + tar.END,
    "something after the end": tar.layer(tar.entry("f", b"x")) + b"tail" * 500,
    "no end": tar.entry("f", b"x"),
    "devices": tar.layer(tar.folder("dev"), tar.entry("dev/sda", kind=b"4"), tar.entry("dev/x", b"x"), tar.entry("dev/x", kind=b"3")),
    "nothing": tar.layer(),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_bytes_come_out(name: str, tmp_path: Path, recipes: Recipes) -> None:
    layer = LAYERS[name]
    found = unpacked(layer, tmp_path / "layer", recipes)
    assert (found.diff_id, found.tar_bytes) == (digest_of(layer), len(layer))
    assert packed(tmp_path / "layer", recipes, found.diff_id) == layer


def test_a_recipe_that_is_cut_off_is_refused(tmp_path: Path, recipes: Recipes) -> None:
    found = unpacked(LOWER, tmp_path / "layer", recipes)
    path = tmp_path / "recipes" / found.diff_id[7:]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ImageFault, match="recipe of a layer is damaged"):
        packed(tmp_path / "layer", recipes, found.diff_id)


def test_a_layer_that_lacks_a_file_is_not_made_up(tmp_path: Path, recipes: Recipes) -> None:
    found = unpacked(LOWER, tmp_path / "layer", recipes)
    (tmp_path / "layer/etc/old").write_bytes(b"")
    with pytest.raises(ImageFault, match="shorter"):
        packed(tmp_path / "layer", recipes, found.diff_id)
