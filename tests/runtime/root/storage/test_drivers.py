"""What every driver must do: one suite, each test for each driver, looked at from inside a user namespace as a container is."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.images.packing import read_container
from runtime.kernel import btrfs
from runtime.storage.driver import Driver, StorageFault
from tests.runtime.root.images.mounting import mounts_below
from tests.runtime.root.storage import boxes, grounds, images

pytestmark = pytest.mark.root

row = pytest.mark.driver_row
MB = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)
type Note = Callable[[str], None]


def fill(path: str, most: int = 400 * MB) -> int:
    """Bytes that fit, on disk."""
    written, piece = 0, os.urandom(64) * 4096
    try:
        with Path(path).open("wb", buffering=0) as file:
            while written < most:
                written += file.write(piece)
    except OSError as error:
        assert error.errno in FULL
    return written


def names(folder: str) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


@row("An image is what its layers make: whiteouts, opaque folders, files for folders, owners, modes, times, links")
def test_an_image_is_what_its_layers_make(driver: Driver, chains: list[str]) -> None:
    def look() -> dict[str, object]:
        conf, tool = Path("/etc/conf").stat(), Path("/bin/tool").stat()
        return {
            "etc": names("/etc"),
            "conf": (Path("/etc/conf").read_text(), conf.st_uid, stat.S_IMODE(conf.st_mode), conf.st_mtime_ns),
            "note": os.getxattr("/etc/conf", "user.note"),
            "tool": (tool.st_uid, stat.S_IMODE(tool.st_mode)),
            "cap": len(os.getxattr("/bin/cap", "security.capability")) >= 20,
            "data": (names("/data"), stat.S_IMODE(Path("/data").stat().st_mode)),
            "opaque": names("/opaque"),
            "swap": Path("/swap").read_text(),
            "linked": Path("/links/one").read_text() + Path("/links/two").read_text(),
            "symbolic": str(Path("/links/symbolic").readlink()),
            "fifo": stat.S_ISFIFO(Path("/data/fifo").lstat().st_mode),
            "top": Path("/top").stat().st_uid,
        }

    with boxes.running(driver.prepare("one", chains)) as box:
        assert box.run(look) == {
            "etc": ["conf", "second"],
            "conf": ("one\n", 1000, 0o640, 10**18 + 123_456_789),
            "note": b"kept",
            "tool": (0, 0o4755),
            "cap": True,
            "data": (["big", "fifo", "stays", os.fsdecode(b"\xff\xfe")], 0o750),
            "opaque": ["shown"],
            "swap": "a file now",
            "linked": "linkedlinked",
            "symbolic": "/etc/conf",
            "fifo": True,
            "top": 65_534,
        }


@row("Many containers of one image, each with files of its own")
def test_many_containers_of_one_image_do_not_see_each_other(driver: Driver, chains: list[str]) -> None:
    names = [f"c{number}" for number in range(8)]
    with ExitStack() as stack:
        found = {name: stack.enter_context(boxes.running(driver.prepare(name, chains))) for name in names}
        for name, box in found.items():
            box.run(lambda name=name: Path("/etc/conf").write_text(name))
        for name, box in found.items():
            assert box.run(lambda: Path("/etc/conf").read_text()) == name
    for name in names:
        driver.remove(name)
    with boxes.running(driver.prepare("after", chains)) as box:
        assert box.run(lambda: Path("/etc/conf").read_text()) == "one\n"


@row("A range of ids of its own; files on disk keep the image's ids")
def test_a_container_has_ids_of_its_own(driver: Driver, chains: list[str]) -> None:
    def make() -> None:
        Path("/mine").touch()
        Path("/bin/tool").chmod(0o755)
        os.chown("/mine", 1000, 1000)

    with boxes.running(driver.prepare("ids", chains)) as box:
        box.run(make)
        outside = Path(f"/proc/{box.pid}/root")
        assert (outside / "mine").stat().st_uid == boxes.ID_BASE + 1000
        assert (outside / "etc/conf").stat().st_uid == boxes.ID_BASE + 1000
    with boxes.running(driver.prepare("ids", chains)) as box:
        assert box.run(lambda: Path("/mine").stat().st_uid) == 1000


@row("Copy-up: a changed file of the image keeps the rest, and the image stays")
def test_a_changed_file_keeps_owner_mode_and_attributes(driver: Driver, chains: list[str]) -> None:
    def change() -> tuple[object, ...]:
        with Path("/etc/conf").open("r+") as file:
            file.write("two")
        with Path("/data/big").open("r+b") as file:
            file.seek(images.BIG // 2)
            file.write(b"changed")
        info = Path("/etc/conf").stat()
        note = os.getxattr("/etc/conf", "user.note")
        return Path("/etc/conf").read_text(), info.st_uid, stat.S_IMODE(info.st_mode), note

    with boxes.running(driver.prepare("changes", chains)) as box:
        assert box.run(change) == ("two\n", 1000, 0o640, b"kept")
        data = box.run(lambda: Path("/data/big").read_bytes())
        assert len(data) == images.BIG and data.count(b"x") == images.BIG - 7
    with boxes.running(driver.prepare("other", chains)) as box:
        assert box.run(lambda: Path("/etc/conf").read_text()) == "one\n"


@row("Whiteouts: what is deleted stays deleted after a restart, and can be made anew")
def test_what_is_deleted_stays_deleted(driver: Driver, chains: list[str]) -> None:
    def delete() -> None:
        Path("/data/stays").unlink()
        shutil.rmtree("/folder")
        Path("/folder").mkdir()
        Path("/folder/new").touch()
        Path("/swap").unlink()

    with boxes.running(driver.prepare("deletes", chains)) as box:
        box.run(delete)
    with boxes.running(driver.prepare("deletes", chains)) as box:
        assert not box.run(lambda: Path("/data/stays").exists() or Path("/swap").exists())
        assert box.run(lambda: names("/folder")) == ["new"]
        box.run(lambda: Path("/data/stays").write_text("again"))
        assert box.run(lambda: Path("/data/stays").read_text()) == "again"


@row("Rename of files and folders of the image")
def test_files_and_folders_of_the_image_are_renamed(driver: Driver, chains: list[str], finding: Note) -> None:
    def rename() -> bool:
        Path("/etc/conf").rename("/folder/sub/conf")
        Path("/data/stays").rename("/etc/second")
        try:
            Path("/folder").rename("/moved")
        except OSError as error:
            assert error.errno == errno.EXDEV
            shutil.move("/folder", "/moved")
            return False
        return True

    with boxes.running(driver.prepare("renames", chains)) as box:
        if not box.run(rename):
            finding("a folder answers EXDEV, upon which `mv` copies")
        assert box.run(lambda: Path("/moved/sub/conf").read_text() + Path("/moved/sub/deep").read_text()) == "one\ndeep"
        assert box.run(lambda: Path("/etc/second").read_text()) == "stays"
        assert not box.run(lambda: Path("/folder").exists() or Path("/etc/conf").exists())


@row("Hard links")
def test_hard_links_are_one_file(driver: Driver, chains: list[str], finding: Note) -> None:
    def link() -> tuple[bool, bool]:
        os.link("/etc/conf", "/etc/other")
        with Path("/etc/other").open("a") as file:
            file.write("more")
        with Path("/links/one").open("a") as file:
            file.write("more")
        same = Path("/etc/conf").stat().st_ino == Path("/etc/other").stat().st_ino
        return same, Path("/links/two").read_text() == "linkedmore"

    with boxes.running(driver.prepare("links", chains)) as box:
        same, old = box.run(link)
        assert same and box.run(lambda: Path("/etc/conf").read_text()) == "one\nmore"
        if not old:
            finding("a name of an image's file that is written becomes a file of its own")


@row("Extended attributes")
def test_attributes_are_set_read_and_removed(driver: Driver, chains: list[str]) -> None:
    def change() -> list[str]:
        os.setxattr("/etc/conf", "user.note", b"new")
        os.setxattr("/etc/second", "user.more", b"1")
        os.setxattr("/top", "security.capability", images.CAPABILITY)
        os.setxattr("/data", "user.folder", b"2")
        os.removexattr("/data", "user.folder")
        return [os.getxattr("/etc/conf", "user.note").decode(), *os.listxattr("/etc/second"), *os.listxattr("/data")]

    with boxes.running(driver.prepare("xattrs", chains)) as box:
        assert box.run(change) == ["new", "user.more"]
        assert box.run(lambda: len(os.getxattr("/top", "security.capability"))) >= 20


@row("mmap, shared and written")
def test_a_mapping_is_written_through(driver: Driver, chains: list[str]) -> None:
    def change() -> bytes:
        with Path("/data/big").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            mapping[4096:4103] = b"through"
            mapping.flush()
            return os.pread(file.fileno(), 7, 4096)

    with boxes.running(driver.prepare("maps", chains)) as box:
        assert box.run(change) == b"through"
    with boxes.running(driver.prepare("maps", chains)) as box:
        assert box.run(lambda: Path("/data/big").read_bytes()[4096:4103]) == b"through"


@row("O_APPEND after copy-up")
def test_appending_goes_to_the_end_of_the_copied_file(driver: Driver, chains: list[str]) -> None:
    def append() -> None:
        first = os.open("/etc/conf", os.O_WRONLY | os.O_APPEND)
        second = os.open("/etc/conf", os.O_WRONLY | os.O_APPEND)
        os.write(first, b"a")
        os.write(second, b"b")
        os.write(first, b"c")

    with boxes.running(driver.prepare("appends", chains)) as box:
        box.run(append)
        assert box.run(lambda: Path("/etc/conf").read_text()) == "one\nabc"


@row("A file's inode number stays, through copy-up and a restart")
@pytest.mark.parametrize("size", [0, 64 * MB], ids=["unsized", "sized"])
def test_inode_numbers_stay(driver: Driver, chains: list[str], size: int, finding: Note) -> None:
    def number() -> int:
        return Path("/etc/conf").stat().st_ino

    with boxes.running(driver.prepare("inodes", chains, size_bytes=size)) as box:
        before = box.run(number)
        box.run(lambda: Path("/etc/conf").write_text("two"))
        after = box.run(number)
        assert after == box.run(number)
    with boxes.running(driver.prepare("inodes", chains, size_bytes=size)) as box:
        again = box.run(number)
    if not before == after == again:
        finding(f"{'with' if size else 'without'} a size not through {'a restart' if before == after else 'copy-up'}")


@row("127 layers")
def test_an_image_of_127_layers(driver: Driver) -> None:
    def one(number: int) -> Callable[[Path], None]:
        return lambda root: (root / f"f{number}").touch()

    chains = [images.add(driver, number, one(number)) for number in range(1, 128)]
    with boxes.running(driver.prepare("deep", chains)) as box:
        assert box.run(lambda: len(names("/"))) == 127


@row("A size, which holds what the container writes, changed live up and down")
def test_a_size_is_held_and_changed_both_ways(driver: Driver, chains: list[str], kind: str) -> None:
    slack = 6 * MB if kind == "btrfs" else MB

    def close_to(found: int, wanted: int) -> bool:
        return wanted - slack <= found <= wanted + MB

    with boxes.running(driver.prepare("sized", chains, size_bytes=50 * MB)) as box:
        assert close_to(box.run(lambda: fill("/a")), 50 * MB)
        assert driver.set_quota("sized", 80 * MB)
        assert close_to(box.run(lambda: fill("/b")), 30 * MB)
        assert driver.set_quota("sized", 20 * MB)
        box.run(lambda: Path("/b").unlink())
        assert box.run(lambda: fill("/c")) <= slack
        assert driver.usage("sized").size_bytes == 20 * MB
    driver.set_quota("sized", 60 * MB)
    with boxes.running(driver.prepare("sized", chains, size_bytes=60 * MB)) as box:
        assert box.run(lambda: fill("/d")) <= 10 * MB + slack


@row("The size left is seen by `df`")
def test_a_full_layer_is_told(driver: Driver, chains: list[str], finding: Note) -> None:
    with boxes.running(driver.prepare("full", chains, size_bytes=50 * MB)) as box:
        box.run(lambda: fill("/a"))
        free = box.run(lambda: os.statvfs("/"))
        if driver.tells_free:
            assert free.f_bavail * free.f_frsize <= MB
        else:
            assert 0.98 * 50 * MB <= driver.usage("full").used_bytes <= 51 * MB
            finding("no: the engine knows what is used, and a full disk is EDQUOT")


@row("A size above the greatest is refused with both figures")
def test_a_size_above_the_greatest_is_refused(driver: Driver) -> None:
    with pytest.raises(StorageFault, match=r"2.1 GB is asked for; this one can grow to 1"):
        driver.prepare("large", [], size_bytes=2100 * 1000 * 1000)
    assert driver.containers() == [] or driver.usage("large").used_bytes < 8 * MB


def changed_paths(driver: Driver, name: str, chains: list[str]) -> dict[str, int]:
    """What the engine's reader finds, as `docker diff` would show it."""
    lines = b"".join(read_container(driver.diff(name, chains), "changes")).splitlines()
    return {path: kind for kind, path in map(json.loads, lines)}


@row("Diff and commit")
@pytest.mark.parametrize("size", [0, 64 * MB], ids=["unsized", "sized"])
def test_what_was_changed_is_found_and_committed(driver: Driver, chains: list[str], size: int) -> None:
    def change() -> None:
        Path("/etc/conf").write_text("changed")
        Path("/data/stays").unlink()
        Path("/new").mkdir()
        Path("/new/file").write_text("new")
        os.chown("/new/file", 1000, 1000)
        shutil.rmtree("/opaque")
        Path("/opaque").write_text("a file")

    wanted = {"etc": 0, "etc/conf": 0, "data": 0, "data/stays": 2, "new": 1, "new/file": 1, "opaque": 0}
    assert changed_paths(driver, "commits", chains) == {}
    with boxes.running(driver.prepare("commits", chains, size_bytes=size)) as box:
        assert changed_paths(driver, "commits", chains) == {}
        box.run(change)
        assert wanted.items() <= changed_paths(driver, "commits", chains).items()
    assert wanted.items() <= changed_paths(driver, "commits", chains).items()
    commit(driver, "commits", chains, images.chain(99))
    with boxes.running(driver.prepare("second", [*chains, images.chain(99)], size_bytes=size)) as box:
        found = box.run(lambda: (Path("/etc/conf").read_text(), Path("/opaque").read_text(), Path("/top").read_text()))
        assert found == ("changed", "a file", "top")
        assert box.run(lambda: (Path("/new/file").stat().st_uid, Path("/data/stays").exists())) == (1000, False)


def commit(driver: Driver, name: str, chains: list[str], chain_id: str) -> None:
    """A layer of what a container changed, as the engine's reader writes it."""
    draft = driver.new_layer()
    data = b"".join(read_container(driver.diff(name, chains), "diff"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = draft.path / member.name
            if path.name.startswith(".wh."):
                images.whiteout(path.with_name(path.name.removeprefix(".wh.")))
            else:
                tar.extract(member, draft.path, filter="fully_trusted", numeric_owner=True)
    digest = hashlib.sha256(data).hexdigest()
    driver.commit_layer(draft, chain_id=chain_id, diff_id=f"sha256:{digest}", size_bytes=len(data))


@row("A crash between preparing and mounting leaves a layer that starts, and nothing half-made")
def test_a_crash_after_preparing_leaves_nothing_half_made(
    driver: Driver, chains: list[str], store: Path, kind: str
) -> None:
    driver.prepare("crashed", chains, size_bytes=50 * MB)
    subprocess.run(["cp", "-a", "--sparse=always", store / "c" / "crashed", store / "tmp" / "c-half"], check=True)
    if kind == "btrfs":
        btrfs.snapshot(store / "c/crashed/root", store / "tmp/r-half")
    driver = grounds.GROUNDS[kind].driver(store)
    assert list((store / "tmp").iterdir()) == [] and driver.containers() == ["crashed"]
    with boxes.running(driver.prepare("crashed", chains, size_bytes=50 * MB)) as box:
        assert box.run(lambda: Path("/etc/conf").read_text()) == "one\n"


@row("Removed while a container runs on it: it goes on, and nothing is left when it ends")
@pytest.mark.parametrize("size", [0, 64 * MB], ids=["unsized", "sized"])
def test_removal_while_busy(driver: Driver, chains: list[str], store: Path, size: int) -> None:
    with boxes.running(driver.prepare("busy", chains, size_bytes=size)) as box:
        box.run(lambda: Path("/held").write_text("x"))
        driver.remove("busy")
        driver.remove("busy")
        assert driver.containers() == []
    driver.prune_layers([])
    driver.empty_trash()
    assert list((store / "trash").iterdir()) == [] and mounts_below(store) == []
    assert driver.layer(chains[0]) is None


@row("A read-only root")
def test_a_root_is_read_only_when_asked(driver: Driver, chains: list[str]) -> None:
    with boxes.running(driver.prepare("fixed", chains, readonly=True)) as box:
        with pytest.raises(OSError, match="Read-only"):
            box.run(lambda: Path("/etc/conf").write_text("two"))
        assert box.run(lambda: Path("/etc/conf").read_text()) == "one\n"
