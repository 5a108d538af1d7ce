"""Carrying out a RootPlan, and every mount that needs the host's rights, in a short-lived helper of the monitor.

The helper works in a throw-away mount namespace and hands detached mounts to the init. Overlay wants its layers attached
(detached ones are refused before 6.8), so the idmapped clone of the store is attached over the store, there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runtime.kernel import loop, mounts, namespaces, syscalls
from runtime.kernel.cgroups import detect
from runtime.oci import fuse, mountoptions, mountplan, volumes
from runtime.oci.fields import SpecFault
from runtime.oci.mountoptions import MountOptions
from runtime.oci.spec import IdMapping, Mount, Spec
from runtime.storage.driver import RootPlan


def host_mounts(spec: Spec) -> dict[str, int]:
    """What the host lends: its devices and a sysfs of this process's network namespace, as detached mounts by name."""
    handed = {}
    for path in _lent_devices(spec):
        clone = handed[f"device:{path}"] = mounts.clone(path)
        mounts.add_attributes(clone, mountplan.DEVICE_ATTRS, private=True)
    sysfs = next((mount for mount in spec.mounts if mount.type == "sysfs"), None)
    if sysfs and mountplan.lends_sysfs(spec):
        handed["sysfs"] = mounts.make("sysfs", (), mountoptions.parse(sysfs.options).attrs, source="sysfs")
    return handed


def build(spec: Spec, bundle: Path, plan: RootPlan | None, userns: int) -> tuple[dict[str, int], str]:
    """Make the binds and the root: detached mounts by name, and the loop device of the writable layer ("" without).

    Changes this process's mount namespace, ids and folder: only for the helper. `userns` is a descriptor of the container's
    user namespace, -1 for the host's. Without a plan the spec's `root.path` is the root, with the ids it has.
    """
    handed = {
        f"bind:{index}": _bind(mount, bundle, userns)
        for index, mount in enumerate(spec.mounts)
        if mountplan.is_bind(mount) and not mountoptions.parse(mount.options).volume
    }
    if plan is None:
        handed["root"] = _given_root(spec, bundle)
    os.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    handed |= volumes.mount_all(spec, bundle, userns)
    handed |= _made_devices(spec)
    if plan is None:
        return handed, ""
    handed["root"], device = make_root(plan, userns, spec.linux.uid_mappings[0].host_id)
    return handed, device


def _lent_devices(spec: Spec) -> list[str]:
    """The host's own nodes. In a user namespace nobody can change their modes or owners."""
    in_dev = any(mount.destination == "/dev" and not mountplan.is_bind(mount) for mount in spec.mounts)
    usual = [f"/dev/{name}" for name in mountplan.DEVICES] if in_dev and spec.linux.namespace("user") else []
    return usual + [device.path for device in spec.linux.devices if not mountplan.has_number(device)]


def _made_devices(spec: Spec) -> dict[str, int]:
    """Nodes with numbers, for a user namespace, in which none can be made: on a tmpfs that goes with this process."""
    wanted = [device for device in spec.linux.devices if mountplan.has_number(device)]
    if not wanted or not spec.linux.namespace("user"):
        return {}
    top = mounts.make("tmpfs", ("mode=700", "size=64k"), source="tmpfs")
    syscalls.move_mount(top, syscalls.AT_FDCWD, "/dev")
    handed = {}
    for number, device in enumerate(wanted):
        uid, gid = (
            host_id(mappings, wanted_id)
            for mappings, wanted_id in ((spec.linux.uid_mappings, device.uid), (spec.linux.gid_mappings, device.gid))
        )
        node = replace(mountplan.node(device), target=f"/{number}", uid=uid, gid=gid)
        node.execute(mountplan.Place(top, {}, detect()))
        clone = handed[f"device:{device.path}"] = mounts.clone(str(number), dir_fd=top)
        mounts.add_attributes(clone, mountplan.DEVICE_ATTRS, private=True)
    os.close(top)
    return handed


def host_id(mappings: tuple[IdMapping, ...], inside: int) -> int:
    """What an id inside is outside; raises SpecFault when it is not mapped."""
    for m in mappings:
        if m.container_id <= inside < m.container_id + m.size:
            return m.host_id + inside - m.container_id
    raise SpecFault(f"The id {inside} is not mapped in the container's user namespace.", "Map it, or choose another.")


def _mapped(path: Path, userns: int) -> int:
    clone = mounts.clone(path)
    mounts.set_idmap(clone, userns)
    return clone


def _given_root(spec: Spec, bundle: Path) -> int:
    """`root.path` with what is mounted below it, made private unless the configuration says otherwise."""
    kind, below = mountoptions.propagation(spec.linux.rootfs_propagation or "rprivate")
    path = bundle / spec.root.path
    if not path.is_dir():
        raise SpecFault(f"root.path is {spec.root.path!r}, where no folder is.", "Unpack the image there first.")
    clone = mounts.clone(path, recursive=True)
    mounts.set_propagation(clone, kind, recursive=below)
    return clone


def _bind(mount: Mount, bundle: Path, userns: int) -> int:
    options = mountoptions.parse(mount.options)
    clone = _source(bundle / mount.source, options)
    mounts.set_propagation(
        clone,
        options.propagation or syscalls.MS_PRIVATE,
        recursive=options.propagation_below or not options.propagation,
    )
    if options.idmap:
        with _mapping(mount, userns) as namespace:
            mounts.set_idmap(clone, namespace, recursive=options.idmap_below)
    if options.attrs or options.clear:
        mounts.add_attributes(clone, options.attrs, clear=options.clear)
    if options.attrs_below or options.clear_below:
        mounts.add_attributes(clone, options.attrs_below, clear=options.clear_below, recursive=True)
    return clone


def _source(path: Path, options: MountOptions) -> int:
    if not options.no_links:
        return mounts.clone(path, recursive=options.bind_below)
    try:
        fd = syscalls.openat2(syscalls.AT_FDCWD, path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise SpecFault(
            f"The bind mount's source {path} leads through a symbolic link.", "Name the folder itself."
        ) from error
    try:
        return mounts.clone("", dir_fd=fd, recursive=options.bind_below)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _mapping(mount: Mount, userns: int) -> Iterator[int]:
    """A user namespace with the mount's own mappings, else the container's."""
    if not mount.uid_mappings:
        yield userns
        return
    fd = namespaces.user_namespace(
        [(m.container_id, m.host_id, m.size) for m in mount.uid_mappings],
        [(m.container_id, m.host_id, m.size) for m in mount.gid_mappings],
    )
    try:
        yield fd
    finally:
        os.close(fd)


def make_root(plan: RootPlan, userns: int, root_id: int) -> tuple[int, str]:
    """The root as a detached mount, and its loop device. Changes this process's mount namespace, ids and folder."""
    if plan.driver == fuse.DRIVER:
        os.chdir(plan.store_root)
        device = _mount_image(plan, -1) if plan.image else ""
        return fuse.mount(plan, root_id), device
    store = _mapped(Path(plan.store_root), userns)
    syscalls.move_mount(store, syscalls.AT_FDCWD, plan.store_root)
    os.close(store)
    os.chdir(plan.store_root)
    device = _mount_image(plan, userns) if plan.image else ""
    _act_as(root_id)
    if not plan.upper:
        ready = mounts.clone(plan.lowers[0])
        if plan.readonly:
            mounts.add_attributes(ready, syscalls.MOUNT_ATTR_RDONLY)
        return ready, device
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
    """Mount the writable layer's ext4 with the container's ids (-1: as they are), held to its size; the loop device's name."""
    assert plan.image is not None and plan.mountpoint is not None
    image = os.open(plan.image, os.O_RDWR | os.O_CLOEXEC)
    try:
        with loop.attached(image) as device:
            made = mounts.make("ext4", plan.image_options, 0, source=f"/dev/{device}")
            if userns >= 0:
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
