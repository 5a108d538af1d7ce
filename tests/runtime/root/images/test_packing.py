"""Reading a container's files in the confined child: what a tenant can make there leads nowhere and leaves nothing out."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runtime.images.format import ImageFault
from runtime.images.packing import read_container
from runtime.images.recipes import Recipes
from runtime.storage.driver import DiffPlan
from tests.runtime.root.images.conftest import unpacked
from tests.runtime.root.images.test_gnu_tar import seen

pytestmark = pytest.mark.root


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """An image's root and a container's, as drivers without overlay keep them: equal but for what a test changes."""
    old, new = tmp_path / "store/old", tmp_path / "store/new"
    for root in (old, new):
        (root / "etc").mkdir(parents=True)
        (root / "etc/kept").write_text("same")
        (root / "etc/gone").write_text("x")
        (root / "etc/longer").write_text("x")
        (root / "folder").mkdir()
        (root / "folder/inside").write_text("x")
        for path in (*root.rglob("*"), root):
            os.utime(path, (1000, 1000))
    return old, new


def plan(new: Path, *, overlay: bool = False) -> DiffPlan:
    return DiffPlan(store_root=str(new.parent), lowers=("old",), changed=new.name, overlay=overlay)


def changes(new: Path, **more: Any) -> set[tuple[int, str]]:
    lines = b"".join(read_container(plan(new, **more), "changes")).splitlines()
    return {(kind, path) for kind, path in map(json.loads, lines)}


def test_two_trees_are_compared_and_the_layer_makes_one_the_other(trees: tuple[Path, Path], tmp_path: Path) -> None:
    _, new = trees
    (new / "etc/gone").unlink()
    (new / "etc/longer").write_text("longer")
    (new / "folder/inside").unlink()
    (new / "folder").rmdir()
    (new / "folder").write_text("a file now")
    (new / "made").mkdir()
    (new / "made").chmod(0o2770)
    (new / "made/\udcff\udcfe").write_text("a name that is no text")
    assert changes(new) == {
        (0, "etc"), (2, "etc/gone"), (0, "etc/longer"), (0, "folder"), (1, "made"), (1, "made/\udcff\udcfe"),
    }  # fmt: skip
    layer = b"".join(read_container(plan(new), "diff"))
    unpacked(layer, tmp_path / "layer", Recipes(tmp_path / "recipes"))
    assert {path for path, row in seen(tmp_path / "layer").items() if str(row[0]).startswith("0o100")} == {
        "etc/longer", "folder", "made/\udcff\udcfe",
    }  # fmt: skip
    assert (tmp_path / "layer/etc/gone").is_char_device()
    assert stat.S_IMODE((tmp_path / "layer/made").stat().st_mode) == 0o2770


def test_nothing_outside_is_read_through_links(trees: tuple[Path, Path], tmp_path: Path) -> None:
    _, new = trees
    (tmp_path / "secret").write_text("the host's")
    (new / "up").symlink_to("../../../secret")
    (new / "absolute").symlink_to(tmp_path / "secret")
    (new / "etc/root").symlink_to("/")
    data = b"".join(read_container(plan(new), "export"))
    assert b"the host's" not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        assert found.getmember("up").linkname == "../../../secret" and found.getmember("etc/root").issym()
        assert not any(name.startswith("etc/root/") for name in found.getnames())


def test_attributes_sockets_and_sparse_files(trees: tuple[Path, Path], tmp_path: Path) -> None:
    _, new = trees
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(new / "etc/s"))
    (new / "etc/noted").write_text("x")
    for name in ("user.note", "user.overlay.opaque", "trusted.overlay.redirect"):
        os.setxattr(new / "etc/noted", name, b"y")
    with (new / "etc/holes").open("wb") as file:
        file.write(b"head")
        file.truncate(1 << 30)
    data = b"".join(read_container(plan(new), "export"))
    assert len(data) < 100_000
    unpacked(data, tmp_path / "copy", Recipes(tmp_path / "recipes"))
    assert os.listxattr(tmp_path / "copy/etc/noted") == ["user.note"]
    assert (tmp_path / "copy/etc/holes").stat().st_size == 1 << 30 and not (tmp_path / "copy/etc/s").exists()


def test_an_opaque_folder_hides_what_the_image_has_there(trees: tuple[Path, Path], tmp_path: Path) -> None:
    old, _ = trees
    (old / "folder/below").mkdir()
    (old / "folder/below/deep").write_text("x")
    upper = tmp_path / "store/upper"
    (upper / "folder/below").mkdir(parents=True)
    (upper / "folder/new").write_text("x")
    os.setxattr(upper / "folder", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "etc", 0o20000, os.makedev(0, 0))
    os.mknod(upper / "never", 0o20000, os.makedev(0, 0))
    assert changes(upper, overlay=True) == {
        (2, "etc"), (0, "folder"), (0, "folder/below"), (2, "folder/below/deep"), (2, "folder/inside"), (1, "folder/new"),
    }  # fmt: skip


def test_what_cannot_be_read_is_said(trees: tuple[Path, Path]) -> None:
    _, new = trees
    upper = new.with_name("upper")
    upper.mkdir()
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/etc")
    with pytest.raises(ImageFault, match="cannot be committed"):
        list(read_container(plan(upper, overlay=True), "diff"))
    here = os.open(new, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(ImageFault, match="more than 256 folders deep"):
        list(read_container(plan(new), "export"))
