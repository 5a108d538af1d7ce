"""Mounting volumes for one container, in the helper: with its ids, and only what lies inside the volume.

A sized volume's ext4 is mounted anew for each container from one loop device: the kernel shares the file system between all
of them and lets go of the device with the last. So nothing of it is in the host's mounts, and nothing stays after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.kernel import loop, mounts, syscalls
from runtime.oci import mountoptions
from runtime.oci.fields import SpecFault
from runtime.oci.mountoptions import MountOptions
from runtime.oci.spec import Spec
from runtime.storage.volumeplan import DATA, IMAGE, INSIDE, VolumePlan, read_plans


def mount_all(spec: Spec, bundle: Path, userns: int) -> dict[str, int]:
    """Detached mounts by the names that the init knows them by. In a throw-away mount namespace: they are attached there first,
    since before Linux 6.15 a part of a detached mount cannot be cloned."""
    root_id = spec.linux.uid_mappings[0].host_id if spec.linux.uid_mappings else 0
    wanted = [(index, mount, mountoptions.parse(mount.options)) for index, mount in enumerate(spec.mounts)]
    wanted = [(index, mount, options) for index, mount, options in wanted if options.volume]
    if not wanted:
        return {}
    plans = read_plans(bundle)
    found = {}
    for index, mount, options in wanted:
        plan = plans.get(mount.destination)
        if plan is None:
            raise SpecFault(f"No volume is planned for {mount.destination[:200]}.", "Start the container again.")
        found[f"bind:{index}"] = _mount(plan, options, userns, root_id)
    return found


def _mount(plan: VolumePlan, options: MountOptions, userns: int, root_id: int) -> int:
    place = Path(plan.folder, DATA)
    whole = image_mount(plan) if plan.sized else mounts.clone(place)
    try:
        mounts.set_propagation(whole, syscalls.MS_PRIVATE)
        mounts.set_idmap(whole, userns)
        syscalls.move_mount(whole, syscalls.AT_FDCWD, place)
        part = _part(whole, plan, root_id)
    finally:
        os.close(whole)
    attrs = options.attrs & ~syscalls.MOUNT_ATTR_RDONLY if options.seed else options.attrs  # the init adds it
    mounts.add_attributes(part, attrs | syscalls.MOUNT_ATTR_NODEV, clear=options.clear, private=True)
    return part


def image_mount(plan: VolumePlan) -> int:
    """A detached mount of a sized volume's file system, held to its size.

    The lock is on a descriptor of its own: one that the loop device had too would keep it as long as the device lives.
    """
    path = Path(plan.folder, IMAGE)
    lock, image = (os.open(path, flags | os.O_CLOEXEC) for flags in (os.O_RDONLY, os.O_RDWR))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two devices over one file would destroy it
        with loop.shared(image, loop.find(path)) as device:
            made = mounts.make("ext4", ("discard",), 0, source=f"/dev/{device}")
            loop.reserve(device, plan.reserved_clusters)
        return made
    finally:
        os.close(image)
        os.close(lock)


def _part(whole: int, plan: VolumePlan, root_id: int) -> int:
    """The volume, or what `subpath` names in it, as a detached mount. Links are followed inside the volume, as its own root
    would; what was found is held by descriptor, so that nobody can put another folder in its place."""
    top = mounts.open_inside(whole, INSIDE if plan.sized else "", links=False)
    try:
        if not plan.subpath:
            return mounts.clone("", dir_fd=top)
        found = _open(top, plan, root_id)
    finally:
        os.close(top)
    try:
        return mounts.clone("", dir_fd=found)
    finally:
        os.close(found)


def _open(top: int, plan: VolumePlan, root_id: int) -> int:
    try:
        if plan.make_subpath:
            with _acting_as(root_id):
                return mounts.target_inside(top, plan.subpath, folder=True)
        return mounts.open_inside(top, plan.subpath)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise SpecFault(
            f"The volume has no {plan.subpath[:200]!r} to mount on {plan.destination[:200]} ({error.strerror}).",
            "Make it first, or leave the sub-path out.",
        ) from error


@contextlib.contextmanager
def _acting_as(root_id: int) -> Iterator[None]:
    """What is made belongs to the container's root: an id outside the mount's map can make nothing (EOVERFLOW)."""
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
    syscalls.setfsgid(root_id)
    syscalls.setfsuid(root_id)
    try:
        yield
    finally:
        syscalls.setfsuid(0)
        syscalls.setfsgid(0)
