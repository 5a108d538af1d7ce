"""Archives as skopeo and umoci write them, and the project's own demo image."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from scripts.demo_image import build
from tests.runtime.root.images.mounting import mounted
from tests.runtime.root.images.test_load_to_mount import NET_RAW

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "hello.tar"
    with path.open("wb") as file:
        build(file)
    return path


def run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_demo_image_is_the_same_each_time_and_for_every_reader(demo: Path, store: ImageStore) -> None:
    again = io.BytesIO()
    image_id = build(again)
    assert again.getvalue() == demo.read_bytes()
    again.seek(0)
    (result,) = store.load(again)
    assert result.image.id == image_id and result.names == ("hello:latest",)
    assert result.image.config.port == 8080 and result.image.config.user == "1000:1000"
    command = ["skopeo", "inspect", "--config", f"docker-archive:{demo}"]
    seen = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert seen["rootfs"]["diff_ids"] == list(result.image.diff_ids)


@pytest.mark.parametrize(
    ("target", "compression"),
    [("docker-archive", ""), ("oci-archive", ""), ("oci-archive", "gzip"), ("oci-archive", "zstd")],
)
def test_what_skopeo_writes_is_the_same_image(
    demo: Path, store: ImageStore, tmp_path: Path, target: str, compression: str
) -> None:
    archive = tmp_path / "out.tar"
    options = ["--dest-compress", f"--dest-compress-format={compression}"] if compression else []
    run("skopeo", "copy", "-q", *options, f"docker-archive:{demo}", f"{target}:{archive}:hello:v7")
    with archive.open("rb") as file:
        (result,) = store.load(file)
    with demo.open("rb") as file:
        (original,) = store.load(file)
    assert result.names == ("hello:v7",)
    assert result.image.diff_ids == original.image.diff_ids
    assert result.image.config.command == ("/app/serve",)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress, lzma.compress, bz2.compress])
def test_a_compressed_archive_is_known_by_its_first_bytes(
    demo: Path, store: ImageStore, pack: Callable[[bytes], bytes]
) -> None:
    (result,) = store.load(io.BytesIO(pack(demo.read_bytes())))
    assert result.names == ("hello:latest",)


def test_what_umoci_changed_is_seen_in_the_mount(
    demo: Path, store: ImageStore, driver: Overlay2, tmp_path: Path
) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("skopeo", "copy", "-q", f"docker-archive:{demo}", f"oci:{layout}:base")
    run("umoci", "unpack", "--image", f"{layout}:base", bundle)
    rootfs = bundle / "rootfs"
    (rootfs / "etc/group").unlink()
    (rootfs / "etc/added").write_text("added")
    (rootfs / "bin/su").write_bytes(b"#!/bin/sh\n")
    (rootfs / "bin/su").chmod(0o4755)
    os.setxattr(rootfs / "bin/su", "security.capability", NET_RAW)
    run("umoci", "repack", "--image", f"{layout}:changed", bundle)
    archive = tmp_path / "out.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:changed", f"oci-archive:{archive}:changed")
    with archive.open("rb") as file:
        (result,) = store.load(file)
    assert len(result.image.chain_ids) == 2
    with mounted(driver.prepare("c1", result.image.chain_ids), tmp_path / "root") as root:
        assert not (root / "etc/group").exists() and (root / "etc/passwd").exists()
        assert (root / "etc/added").read_text() == "added"
        assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4755
        assert os.getxattr(root / "bin/su", "security.capability") == NET_RAW
        assert (root / "bin/sh").readlink() == Path("busybox")
        assert (root / "home/app").stat().st_uid == 1000
