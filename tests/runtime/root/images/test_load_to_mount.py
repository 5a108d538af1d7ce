"""From an archive to the files a container sees: owners, setuid, capabilities, links, whiteouts, sparse files."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backports import zstd

from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar
from tests.runtime.root.images.mounting import mounted, mounts_below

pytestmark = pytest.mark.root

NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # vfs_cap_data, version 2, effective
LONG = "long/" + "n" * 200 + "/" + "m" * 250

LOWER = tar.layer(
    tar.folder("./", mode=0o750),
    tar.folder("bin"),
    tar.entry("bin/su", b"su", mode=0o4755),
    tar.pax({"SCHILY.xattr.security.capability": NET_RAW, "SCHILY.xattr.user.note": b"kept"}),
    tar.entry("bin/ping", b"ping", mode=0o755),
    tar.hard_link("bin/ping6", "bin/ping"),
    tar.folder("etc"),
    tar.entry("etc/old", b"old"),
    tar.folder("var"),
    tar.folder("var/cache"),
    tar.entry("var/cache/stale", b"stale"),
    tar.entry("home", b"", kind=b"5", uid=1000, gid=1001, mode=0o2770, mtime=1_000_000),
    tar.entry("replaced", b"a file"),
    tar.folder("folder"),
    tar.entry("folder/inside", b"x"),
)
UPPER = tar.layer(
    tar.entry("etc/.wh.old"),
    tar.entry("var/cache/.wh..wh..opq"),
    tar.entry("var/cache/fresh", b"fresh", uid=65535, gid=65535),
    tar.pax({"SCHILY.xattr.trusted.overlay.redirect": b"/etc", "SCHILY.xattr.user.overlay.opaque": b"y"}),
    tar.entry("innocent", b"x"),
    tar.pax({"path": LONG.encode()}),
    tar.entry("short", b"long"),
    tar.entry("././@LongLink", b"gnu/" + b"g" * 150 + b"\0", kind=b"L"),
    tar.entry("cut", b"gnu"),
    tar.symlink("lib", "usr/lib"),
    tar.entry("lib/through", b"through a link"),
    tar.symlink("absolute", "/etc/shadow"),
    tar.entry("pipe", kind=b"6", mode=0o640),
    tar.pax({"GNU.sparse.map": b"0,4,1048576,4", "GNU.sparse.size": b"2097152"}),
    tar.entry("sparse", b"headtail"),
    tar.folder("replaced"),
    tar.entry("replaced/now", b"a folder"),
    tar.entry(".wh.folder"),
    tar.entry("folder", b"now a file"),
    tar.entry("names/\udcff\udcfe".encode("utf-8", "surrogateescape"), b"bytes"),
    tar.pax({"mtime": b"1234567890.123456789"}),
    tar.entry("dated", b"x"),
)


@pytest.fixture(params=["plain", "gzip", "zstd"])
def root(request: pytest.FixtureRequest, store: ImageStore, driver: Overlay2, tmp_path: Path) -> Iterator[Path]:
    """The two layers, transported in each way, mounted."""
    packers: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress}
    pack = packers[request.param]
    layers = [LOWER, UPPER]
    archive = tar.docker_archive([pack(item) for item in layers], diff_ids=[tar.digest(item) for item in layers])
    (result,) = store.load(io.BytesIO(archive))
    assert result.names == ("hostile:latest",)
    plan = driver.prepare("c1", result.image.chain_ids)
    with mounted(plan, tmp_path / "root") as folder:
        yield folder
    driver.remove("c1")
    assert mounts_below(tmp_path) == []


def test_every_kind_of_entry_arrives_as_it_was_made(root: Path) -> None:
    su, ping, home = (root / "bin/su").stat(), (root / "bin/ping").stat(), (root / "home").stat()
    assert stat.S_IMODE(su.st_mode) == 0o4755
    assert os.getxattr(root / "bin/ping", "security.capability") == NET_RAW
    assert os.getxattr(root / "bin/ping", "user.note") == b"kept"
    assert ping.st_nlink == 2 and ping.st_ino == (root / "bin/ping6").stat().st_ino
    assert (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode), home.st_mtime) == (1000, 1001, 0o2770, 1_000_000)
    assert (root / LONG).read_bytes() == b"long"
    assert (root / "gnu" / ("g" * 150)).read_bytes() == b"gnu"
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode) and stat.S_IMODE((root / "pipe").stat().st_mode) == 0o640
    assert (root / "dated").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert [os.fsencode(path.name) for path in (root / "names").iterdir()] == [b"\xff\xfe"]


def test_whiteouts_hide_what_lies_below(root: Path) -> None:
    assert not (root / "etc/old").exists() and (root / "etc").is_dir()
    assert [path.name for path in (root / "var/cache").iterdir()] == ["fresh"]
    assert (root / "var/cache/fresh").stat().st_uid == 65535
    assert (root / "replaced/now").read_bytes() == b"a folder"
    assert (root / "folder").read_bytes() == b"now a file"


def test_links_stay_links_and_lead_inside(root: Path) -> None:
    assert (root / "usr/lib/through").read_bytes() == b"through a link"
    assert str((root / "absolute").readlink()) == "/etc/shadow"


def test_attributes_that_steer_overlay_are_dropped(root: Path) -> None:
    assert os.listxattr(root / "innocent") == []


def test_a_sparse_file_keeps_its_holes(root: Path) -> None:
    data = (root / "sparse").read_bytes()
    assert (len(data), data[:4], data[1048576:1048580]) == (2097152, b"head", b"tail")
    assert data.count(0) == 2097152 - 8
    assert (root / "sparse").stat().st_blocks * 512 < 100_000


def test_what_a_container_writes_stays_in_its_own_layer(root: Path, driver: Overlay2, store: ImageStore) -> None:
    (root / "etc/new").write_bytes(b"mine")
    (root / "bin/su").unlink()
    (image,) = store.list()
    for chain_id in image.chain_ids:
        layer = driver.layer(chain_id)
        assert layer is not None and not (layer.path / "etc/new").exists()
    lowest = driver.layer(image.chain_ids[0])
    assert lowest is not None and (lowest.path / "bin/su").exists()
