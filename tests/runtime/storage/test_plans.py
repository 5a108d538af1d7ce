"""Plans and choices: pure data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.storage.choose import Here, decide, filesystem_of, known_filesystems, refusal
from runtime.storage.driver import RootPlan, StorageFault

PLAN = RootPlan(
    store_root="/s", lowers=("l/B", "l/A"), upper="c/x/fs/u", work="c/x/fs/w", image="c/x/disk.ext4", mountpoint="c/x/fs",
    image_options=("discard",), reserved_clusters=7, size_bytes=1 << 20,
)  # fmt: skip


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "root.json")
    assert RootPlan.read(tmp_path / "root.json") == PLAN
    assert RootPlan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(StorageFault, match="not readable"):
        RootPlan.from_json(PLAN.to_json() | {"unknown": 1})


def test_the_file_system_of_a_folder_is_its_nearest_mount(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "30 22 0:25 / /var/lib/with\\040space rw - btrfs /dev/vdb rw\n"
        "31 22 0:26 / /var/lib rw - tmpfs tmpfs rw\n"
    )
    assert filesystem_of(Path("/opt"), mountinfo) == "ext4"
    assert filesystem_of(Path("/var/lib/x"), mountinfo) == "tmpfs"
    assert filesystem_of(Path("/var/lib/with space/x"), mountinfo) == "btrfs"
    assert filesystem_of(Path("/var/library"), mountinfo) == "ext4"


STORE = Path("/s")
GOOD = Here(frozenset({"overlay", "ext4"}), STORE, "ext4", has_fuse=True)


def test_overlay2_is_refused_with_the_reason() -> None:
    assert refusal("overlay2", GOOD) == ""
    assert "no overlay" in refusal("overlay2", replace(GOOD, filesystems=frozenset({"ext4"})))
    assert "lies on tmpfs" in refusal("overlay2", replace(GOOD, store_kind="tmpfs"))


@pytest.mark.parametrize(
    ("here", "wanted", "before", "driver", "said"),
    [
        (GOOD, "", "", "overlay2", "overlay2: the kernel has overlay, the store is on ext4"),
        (replace(GOOD, store_kind="btrfs"), "", "", "overlay2", "the store is on btrfs"),
        (replace(GOOD, filesystems=frozenset(), store_kind="btrfs"), "", "", "btrfs", "it is the first that works here"),
        (replace(GOOD, filesystems=frozenset()), "", "", "fuse-overlayfs", "it is the first that works here"),
        (replace(GOOD, filesystems=frozenset(), has_fuse=False), "", "", "vfs", "it is the first that works here"),
        (replace(GOOD, store_kind="nfs"), "", "", "fuse-overlayfs", "the store is on nfs"),
        (GOOD, "vfs", "", "vfs", "it was asked for"),
        (GOOD, "", "vfs", "vfs", "the store was made with it"),
        (GOOD, "", "btrfs", "overlay2", "the kernel has overlay"),
        (GOOD, "aufs", "", "overlay2", "aufs is retired"),
        (replace(GOOD, store_kind="btrfs", filesystems=frozenset({"aufs"})), "aufs", "", "btrfs", "btrfs is used in its place"),
    ],
)  # fmt: skip
def test_the_first_driver_that_works_is_chosen_unless_another_is_asked_for(
    here: Here, wanted: str, before: str, driver: str, said: str
) -> None:
    name, reason, passed_over = decide(wanted, before, here)
    assert name == driver and reason.startswith(f"{driver}: ") and said in reason
    assert all(sentence.endswith(".") for sentence in passed_over.values()) and driver not in passed_over


@pytest.mark.parametrize(
    ("here", "wanted", "said"),
    [
        (GOOD, "btrfs", r"btrfs cannot work here. The store /s lies on ext4, not on btrfs."),
        (GOOD, "zfs", "zfs cannot work here. zfs is not among the drivers"),
        (GOOD, "devicemapper", "devicemapper is not among the drivers"),
        (GOOD, "windowsfilter", "There is no storage driver 'windowsfilter'"),
        (replace(GOOD, has_fuse=False), "fuse-overlayfs", "the program fuse-overlayfs is not installed"),
        (replace(GOOD, store_kind="nfs", has_fuse=False), "", "No storage driver works here"),
    ],
)
def test_a_driver_that_cannot_work_is_refused_in_a_sentence(here: Here, wanted: str, said: str) -> None:
    with pytest.raises(StorageFault, match=said) as caught:
        decide(wanted, "", here)
    assert caught.value.hint


def test_a_kernel_that_still_has_aufs_is_told_that_it_is_retired() -> None:
    here = replace(GOOD, filesystems=frozenset({"overlay", "aufs"}))
    name, _, passed_over = decide("", "", here)
    assert name == "overlay2" and "retired" in passed_over["aufs"] and "overlay2 is used" in passed_over["aufs"]


def test_file_systems_are_read_from_the_kernels_list(tmp_path: Path) -> None:
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\toverlay\n\text4\n")
    assert known_filesystems(tmp_path / "filesystems") == {"sysfs", "overlay", "ext4"}
