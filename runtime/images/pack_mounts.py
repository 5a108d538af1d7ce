"""The root of the child that reads a container's files: `new` and `old` below a tmpfs, all of it read-only.

In a mount namespace of the child's own, so everything goes with it. The caller sees to it that the container neither starts
nor stops meanwhile: an ext4 file must never be mounted through two loop devices.
"""

from __future__ import annotations

import os
from pathlib import Path

from runtime.kernel import loop, mounts, syscalls
from runtime.storage import ext4
from runtime.storage.driver import DiffPlan

_ATTRS = (
    syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
)
_FLAGS = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_MAX_LOWERS_ALONE = 1  # overlay without an upper folder wants two


def open_view(plan: DiffPlan, *, merged: bool) -> int:
    """A descriptor of the view. `merged`: `new` has all of the container's files, not only overlay's upper folder."""
    os.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    os.chdir(plan.store_root)
    if plan.image is not None:
        _mount_image(plan)
    place = Path(plan.store_root)
    _attach(mounts.make("tmpfs", ("mode=755", "size=64k"), source="tmpfs"), place)
    for name in ("new", "old", "empty"):
        (place / name).mkdir()
    changed = plan.changed if Path(plan.changed).is_dir() else str(place / "empty")  # it has never run
    new = (changed, *plan.lowers) if merged and plan.overlay else (changed,)
    _stack(plan.lowers, place / "old")
    _stack(new, place / "new")
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _stack(folders: tuple[str, ...], target: Path) -> None:
    if len(folders) <= _MAX_LOWERS_ALONE:
        for folder in folders:
            clone = mounts.clone(folder)
            mounts.add_attributes(clone, _ATTRS)
            _attach(clone, target)
        return
    data = f"lowerdir={':'.join(folders)},index=off"
    syscalls.mount("overlay", str(target), "overlay", _FLAGS, data)


def _attach(mount: int, target: Path) -> None:
    syscalls.move_mount(mount, syscalls.AT_FDCWD, str(target))
    os.close(mount)


def _mount_image(plan: DiffPlan) -> None:
    """The file system of the writable layer; where the container runs, the one that is mounted already."""
    assert plan.image is not None and plan.mountpoint is not None
    device = ext4.find_loop(Path(plan.image))
    if device is not None:
        _attach_device(device, plan)
        return
    image = os.open(plan.image, os.O_RDWR | os.O_CLOEXEC)
    try:
        with loop.attached(image) as device:
            _attach_device(device, plan)
    finally:
        os.close(image)


def _attach_device(device: str, plan: DiffPlan) -> None:
    assert plan.mountpoint is not None
    made = mounts.make("ext4", plan.image_options, _ATTRS, source=f"/dev/{device}")
    _attach(made, Path(plan.mountpoint))
