"""Layers as GNU tar writes them: every format, long names, sparse files, hard links, attributes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from runtime.images.format import digest_of
from runtime.images.recipes import Recipes
from tests.runtime.root.images.conftest import packed, unpacked

pytestmark = pytest.mark.root

FORMATS = [
    ["--format=gnu", "--sparse"],
    ["--format=posix", "--sparse", "--sparse-version=0.0"],
    ["--format=posix", "--sparse", "--sparse-version=0.1"],
    ["--format=posix", "--sparse", "--sparse-version=1.0"],
    ["--format=posix", "--xattrs", "--xattrs-include=*"],
    ["--format=ustar"],
    ["--format=gnu", "--numeric-owner", "--blocking-factor=128"],
]
PIECES = 300  # more than a header and several extension blocks hold


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with what the formats write differently."""
    folder = tmp_path / "source"
    (folder / "usr/share").mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o711)
    (folder / "usr/plain").write_bytes(os.urandom(1_300_000))
    os.link(folder / "usr/plain", folder / "zz-linked")
    (folder / "usr/link").symlink_to("../zz-linked")
    (folder / "usr/share" / ("n" * 90)).write_text("long")
    (folder / "setuid").write_text("x")
    os.chown(folder / "setuid", 65535, 12345)
    (folder / "setuid").chmod(0o6755)
    with (folder / "sparse").open("wb") as file:
        for number in range(PIECES):
            file.seek(number * 65536)
            file.write(b"%4096d" % number)
        file.truncate(PIECES * 65536 + 17)
    os.mkfifo(folder / "fifo")
    return folder


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    """What must be equal on both sides."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        target = str(path.readlink()) if path.is_symlink() else ""
        row = (oct(info.st_mode), info.st_uid, info.st_gid, info.st_nlink, int(info.st_mtime), content, target)
        found[str(path.relative_to(folder))] = row
    return found


@pytest.mark.parametrize("options", FORMATS, ids=lambda options: " ".join(options))
def test_a_layer_of_gnu_tar_is_unpacked_as_it_was(
    source: Path, tmp_path: Path, recipes: Recipes, options: list[str]
) -> None:
    layer = subprocess.run(["tar", "-C", source, *options, "-cf", "-", "."], capture_output=True, check=True).stdout
    target = tmp_path / "target"
    found = unpacked(layer, target, recipes)
    assert found.diff_id == digest_of(layer)
    assert packed(target, recipes, found.diff_id) == layer
    assert seen(target) == seen(source)
    if "--sparse" in options:
        assert (target / "sparse").stat().st_blocks <= (source / "sparse").stat().st_blocks + 8
