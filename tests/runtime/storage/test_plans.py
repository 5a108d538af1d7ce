"""Plans and choices: pure data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.storage.choose import filesystem_of, known_filesystems, refusal
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


def test_overlay2_is_refused_with_the_reason() -> None:
    good = frozenset({"overlay", "ext4"})
    assert refusal(good, "ext4", Path("/s")) == ""
    assert "no overlay" in refusal(frozenset({"ext4"}), "ext4", Path("/s"))
    assert "lies on tmpfs" in refusal(good, "tmpfs", Path("/s"))


def test_file_systems_are_read_from_the_kernels_list(tmp_path: Path) -> None:
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\toverlay\n\text4\n")
    assert known_filesystems(tmp_path / "filesystems") == {"sysfs", "overlay", "ext4"}
