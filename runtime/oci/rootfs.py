"""Carrying out a RootPlan, and every mount that needs the host's rights, in a short-lived helper of the monitor.

The helper works in a throw-away mount namespace and hands detached mounts to the init. Overlay wants its layers attached
(detached ones are refused before 6.8), so the idmapped clone of the store is attached over the store, there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runtime.kernel import loop, mounts, syscalls
from runtime.oci import mountplan
from runtime.oci.spec import Mount, Spec
from runtime.storage.driver import RootPlan


def host_mounts(spec: Spec) -> dict[str, int]:
    """What the host lends: its devices and a sysfs of this process's network namespace, as detached mounts by name."""
    handed = {f"device:{path}": mounts.clone(path) for path in _devices(spec)}
    for clone in handed.values():
        mounts.add_attributes(clone, mountplan.DEVICE_ATTRS, private=True)
    if any(mount.type == "sysfs" for mount in spec.mounts):
        handed["sysfs"] = mounts.make("sysfs", (), mountplan.SYSFS_ATTRS, source="sysfs")
    return handed


def build(spec: Spec, bundle: Path, plan: RootPlan | None, userns: int) -> tuple[dict[str, int], str]:
    """Make the binds and the root: detached mounts by name, and the loop device of the writable layer ("" without).

    Changes this process's mount namespace, ids and folder: only for the helper. `userns` is a descriptor of the container's
    user namespace. Without a plan the spec's `root.path` is the root.
    """
    os.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    handed = {
        f"bind:{index}": _bind(mount, bundle, userns)
        for index, mount in enumerate(spec.mounts)
        if mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    }
    if plan is None:
        handed["root"] = _mapped(bundle / spec.root.path, userns)
        return handed, ""
    handed["root"], device = _root(plan, userns, spec.linux.uid_mappings[0].host_id)
    return handed, device


def _devices(spec: Spec) -> list[str]:
    return [f"/dev/{name}" for name in mountplan.DEVICES] + [device.path for device in spec.linux.devices]


def _mapped(path: Path, userns: int, *, recursive: bool = False) -> int:
    clone = mounts.clone(path, recursive=recursive)
    mounts.set_idmap(clone, userns)
    return clone


def _bind(mount: Mount, bundle: Path, userns: int) -> int:
    clone = _mapped(bundle / mount.source, userns)
    attrs, _ = mounts.split_options(mount.options)
    if attrs:
        mounts.add_attributes(clone, attrs)
    return clone


def _root(plan: RootPlan, userns: int, root_id: int) -> tuple[int, str]:
    """The root as a detached mount, and its loop device."""
    store = _mapped(Path(plan.store_root), userns)
    syscalls.move_mount(store, syscalls.AT_FDCWD, plan.store_root)
    os.close(store)
    os.chdir(plan.store_root)
    device = _mount_image(plan, userns) if plan.image else ""
    _act_as(root_id)
    if not plan.upper:
        return mounts.clone(plan.lowers[0]), device
    for folder in (plan.upper, plan.work):
        Path(folder).mkdir(mode=0o755, exist_ok=True)
    volatile = Path(plan.work) / "work/incompat/volatile"  # left by such a mount, refuses the next one
    with contextlib.suppress(FileNotFoundError):
        (volatile / "dirty").unlink()
        volatile.rmdir()
    data = ",".join(
        (f"lowerdir={':'.join(plan.lowers)}", f"upperdir={plan.upper}", f"workdir={plan.work}", *plan.options)
    )
    syscalls.mount("overlay", plan.store_root, "overlay", syscalls.MS_RDONLY if plan.readonly else 0, data)
    return mounts.clone(plan.store_root), device


def _mount_image(plan: RootPlan, userns: int) -> str:
    """Mount the writable layer's ext4 with the container's ids, held to its size; returns the loop device's name."""
    assert plan.image is not None and plan.mountpoint is not None
    image = os.open(plan.image, os.O_RDWR | os.O_CLOEXEC)
    try:
        with loop.attached(image) as device:
            made = mounts.make("ext4", plan.image_options, 0, source=f"/dev/{device}")
            mounts.set_idmap(made, userns)
            syscalls.move_mount(made, syscalls.AT_FDCWD, plan.mountpoint)
            os.close(made)
    finally:
        os.close(image)
    if plan.size_bytes:  # also to 0: the kernel's own reserve would take up to 16 MB from the size
        loop.reserve(device, plan.reserved_clusters)
    return device


def _act_as(root_id: int) -> None:
    """Touch files as the container's root: an overlay mounted with an fsuid outside the map is silently read-only."""
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
    syscalls.setfsgid(root_id)
    syscalls.setfsuid(root_id)
