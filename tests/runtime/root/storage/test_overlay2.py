"""The default driver for real: writable layers of a size, quotas while mounted, removal, and what a crash leaves."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.storage import ext4, trees
from runtime.storage.driver import StorageFault
from runtime.storage.overlay2 import Overlay2
from tests.runtime.root.images.mounting import eventually, mounted, mounts_below
from tests.runtime.root.storage import boxes

pytestmark = pytest.mark.root

MB = 1 << 20
CHAIN = "sha256:" + "a" * 64


@pytest.fixture
def store(state: Path) -> Path:
    return state / "engine" / "store"


@pytest.fixture
def driver(store: Path) -> Overlay2:
    return Overlay2(store, max_disk_bytes=512 * MB)


def fill(path: Path) -> int:
    """Bytes that fit."""
    written = 0
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                written += file.write(bytes(65536))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    return written


def add_layer(driver: Overlay2, name: str, chain_id: str, diff_id: str) -> None:
    draft = driver.new_layer()
    (draft.path / name).write_text(name)
    driver.commit_layer(draft, chain_id=chain_id, diff_id=diff_id, size_bytes=len(name))


def test_a_sized_layer_is_full_at_its_size_and_follows_the_quota_both_ways(driver: Overlay2, tmp_path: Path) -> None:
    plan = driver.prepare("sized", [], size_bytes=50 * MB)
    with mounted(plan, tmp_path / "root") as root:
        assert fill(root / "a") == pytest.approx(50 * MB, abs=MB)
        assert driver.set_quota("sized", 80 * MB)
        assert fill(root / "b") == pytest.approx(30 * MB, abs=MB)
        assert driver.set_quota("sized", 20 * MB)
        (root / "b").unlink()
        assert fill(root / "c") < MB
        assert driver.usage("sized").size_bytes == 20 * MB
    assert not driver.set_quota("sized", 60 * MB)  # not mounted: from the next start on
    assert ext4.find_loop(Path(plan.store_root, plan.image or "")) is None


def allocate(path: Path) -> int:
    """Bytes that can be allocated, to the block."""
    fd, size, step = os.open(path, os.O_RDWR | os.O_CREAT), 0, 256 * MB
    try:
        while step >= ext4.BLOCK_BYTES:
            try:
                os.posix_fallocate(fd, size, step)
                size += step
            except OSError as error:
                assert error.errno == errno.ENOSPC
                step //= 2
    finally:
        os.close(fd)
    return size


@pytest.mark.parametrize("size", [64 * MB, 512 * MB, 4096 * MB])
def test_a_sized_layer_offers_its_size_within_two_percent(store: Path, tmp_path: Path, size: int) -> None:
    plan = Overlay2(store, max_disk_bytes=8192 * MB).prepare("sized", [], size_bytes=size)
    with mounted(plan, tmp_path / "root") as root:
        found = os.statvfs(root)
        assert 0 <= size - found.f_bavail * found.f_frsize <= 2 * ext4.BLOCK_BYTES  # overlay makes a folder of its own
        assert size * 0.98 <= allocate(root / "a") <= size


def test_the_size_is_counted_from_the_empty_layer_at_every_mount(driver: Overlay2, tmp_path: Path) -> None:
    for expected in (50 * MB, 30 * MB):
        with mounted(driver.prepare("twice", [], size_bytes=50 * MB), tmp_path / "root") as root:
            found = os.statvfs(root)
            assert expected * 0.98 <= found.f_bavail * found.f_frsize <= expected
            fd = os.open(root / "kept", os.O_RDWR | os.O_CREAT)
            os.posix_fallocate(fd, 0, 20 * MB)
            os.close(fd)


def test_what_is_deleted_inside_is_free_outside(driver: Overlay2, tmp_path: Path) -> None:
    plan = driver.prepare("sized", [], size_bytes=100 * MB)
    with mounted(plan, tmp_path / "root") as root:
        (root / "big").write_bytes(bytes([1]) * 40 * MB)
        os.sync()
        assert driver.usage("sized").used_bytes > 40 * MB
        (root / "big").unlink()
    assert driver.usage("sized").used_bytes < 4 * MB


def test_content_survives_a_second_start(driver: Overlay2, tmp_path: Path) -> None:
    for size in (0, 50 * MB):
        name = f"kept{size}"
        for expected in (False, True):
            with mounted(driver.prepare(name, [], size_bytes=size), tmp_path / "root") as root:
                assert (root / "file").exists() is expected
                (root / "file").write_text("kept")
                assert (root / "file").read_text() == "kept"


def test_a_crash_of_the_host_is_repaired_before_the_next_start(driver: Overlay2, tmp_path: Path) -> None:
    plan = driver.prepare("crashed", [], size_bytes=50 * MB)
    image = Path(plan.store_root, plan.image or "")
    with image.open("r+b") as file:
        file.seek(1024 + 0x3A)
        file.write(b"\0\0")  # as if it had been mounted when the power went
    assert not ext4.read_superblock(image).clean
    with mounted(driver.prepare("crashed", [], size_bytes=50 * MB), tmp_path / "root") as root:
        (root / "works").touch()
    assert ext4.read_superblock(image).clean


def test_a_layer_mounted_in_a_container_can_be_removed_and_goes_with_it(
    driver: Overlay2, store: Path, tmp_path: Path
) -> None:
    plan = driver.prepare("busy", [], size_bytes=50 * MB)
    with mounted(plan, tmp_path / "root"):
        assert ext4.find_loop(store / (plan.image or "")) is not None
        driver.remove("busy")
        driver.remove("busy")
    assert driver.containers() == [] and list((store / "trash").iterdir()) == []
    assert mounts_below(tmp_path) == []
    eventually(lambda: not [line for line in _loops() if str(tmp_path) in line])


def _loops() -> list[str]:
    return subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_size_above_the_greatest_is_refused_with_both_figures(driver: Overlay2) -> None:
    with pytest.raises(StorageFault, match=r"1.1 GB is asked for; this one can grow to 5\d\d MB"):
        driver.prepare("large", [], size_bytes=1100 * 1000 * 1000)


def test_a_container_without_a_size_gets_none_later(driver: Overlay2) -> None:
    driver.prepare("plain", [])
    with pytest.raises(StorageFault, match="no size that could change"):
        driver.set_quota("plain", MB)
    with pytest.raises(StorageFault, match="made without a size"):
        driver.prepare("plain", [], size_bytes=50 * MB)


def test_layers_in_use_by_a_container_stay(driver: Overlay2, store: Path) -> None:
    add_layer(driver, "a", CHAIN, "sha256:" + "1" * 64)
    driver.prepare("user", [CHAIN])
    assert driver.prune_layers([]) == []
    driver.remove("user")
    assert driver.prune_layers([]) == [CHAIN]
    driver.empty_trash()
    assert [path.name for path in (store / "l").iterdir()] == ["empty"]


def test_equal_layers_share_a_folder_and_mount_once(driver: Overlay2, store: Path, tmp_path: Path) -> None:
    diffs = ["sha256:" + digit * 64 for digit in "121"]
    chains = ["sha256:" + digit * 64 for digit in "abc"]
    for name, chain, diff in zip("xyx", chains, diffs, strict=True):
        add_layer(driver, name, chain, diff)
    plan = driver.prepare("shared", chains)
    assert len(plan.lowers) == 2
    with mounted(plan, tmp_path / "root") as root:
        assert sorted(path.name for path in root.iterdir()) == ["x", "y"]


def test_digests_that_begin_alike_do_not_share_a_folder(driver: Overlay2) -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "1" * 32 + "2" * 32
    add_layer(driver, "x", "sha256:" + "a" * 64, one)
    add_layer(driver, "y", "sha256:" + "b" * 64, two)
    folders = driver.prepare("c", ["sha256:" + "a" * 64, "sha256:" + "b" * 64]).lowers
    assert len(set(folders)) == 2


def test_a_hundred_layers_fit_one_mount(driver: Overlay2, tmp_path: Path) -> None:
    chains = [f"sha256:{number:064x}" for number in range(127)]
    for number, chain in enumerate(chains):
        add_layer(driver, f"f{number}", chain, f"sha256:{number + 7:032x}{number:032x}")
    with mounted(driver.prepare("deep", chains, size_bytes=50 * MB), tmp_path / "root") as root:
        assert len(list(root.iterdir())) == 127


def test_what_a_crash_left_half_made_is_swept_at_start(driver: Overlay2, store: Path) -> None:
    add_layer(driver, "good", CHAIN, "sha256:" + "1" * 64)
    (driver.new_layer().path / "half").touch()
    (store / "l" / "ORPHAN").mkdir()
    (store / "layers" / f"{'b' * 64}.json").write_text('{"chain_id": "cut')
    again = Overlay2(store)
    assert again.layer(CHAIN) is not None
    assert list((store / "tmp").iterdir()) == [] and not (store / "l" / "ORPHAN").exists()
    assert len(list((store / "layers").iterdir())) == 1


def test_layers_not_yet_on_disk_are_forgotten_after_a_crash_of_the_host(
    driver: Overlay2, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_layer(driver, "settled", CHAIN, "sha256:" + "1" * 64)
    driver.settle()
    add_layer(driver, "lost", "sha256:" + "b" * 64, "sha256:" + "2" * 64)
    monkeypatch.setattr("runtime.storage.layers.boot_id", lambda: "another boot")
    again = Overlay2(store)
    assert again.layer(CHAIN) is not None and again.layer("sha256:" + "b" * 64) is None


def test_a_tree_of_any_depth_is_removed_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").touch()
    deep = tmp_path / "deep"
    deep.mkdir()
    (deep / "link").symlink_to(outside)
    fd = os.open(deep, os.O_RDONLY)
    for _ in range(1100):  # beyond the recursion limit
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    trees.discard(deep, tmp_path / "trash")
    assert not deep.exists() and list((tmp_path / "trash").iterdir()) == []
    assert (outside / "canary").exists()


def cached_bytes() -> int:
    """The host's page cache (proc(5), meminfo)."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Cached:"))
    return int(line.split()[1]) * 1024


def test_a_hundred_containers_of_one_image_have_its_files_in_memory_once(driver: Overlay2) -> None:
    draft, size, count = driver.new_layer(), 16 * MB, 100
    (draft.path / "library").write_bytes(os.urandom(size))
    driver.commit_layer(draft, chain_id=CHAIN, diff_id="sha256:" + "1" * 64, size_bytes=size)
    driver.settle()
    layer = driver.layer(CHAIN)
    assert layer is not None
    with (layer.path / "library").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read() -> int:
        with Path("/library").open("rb") as library, mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            return sum(mapping[at] for at in range(0, size, 4096)) and len(mapping)

    with ExitStack() as stack:
        found = [stack.enter_context(boxes.running(driver.prepare(f"c{n}", [CHAIN]))) for n in range(count)]
        before = cached_bytes()
        assert [box.run(read) for box in found] == [size] * count
        grown = cached_bytes() - before
    print(f"{count} containers read {size // MB} MB each: the page cache grew by {grown / MB:.1f} MB")
    assert grown < count * size / 8  # others use this machine too


def test_the_store_is_closed_to_others(store: Path, driver: Overlay2) -> None:
    assert store.stat().st_mode & 0o077 == 0
