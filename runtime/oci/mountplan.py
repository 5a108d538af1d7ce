"""What the init mounts, as a list of small operations: made from the spec, printable, carried out inside its namespaces.

Targets are resolved inside the image's root (mounts.open_inside), by the init alone, with the container's own ids.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Protocol

from runtime.dataclass import dataclass
from runtime.kernel import mounts
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v1 import CONTROLLERS, V1
from runtime.kernel.cgroups.v2 import V2
from runtime.kernel.syscalls import MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runtime.oci import copyup, mountoptions
from runtime.oci.fields import SpecFault
from runtime.oci.mountoptions import MountOptions
from runtime.oci.spec import Device, Mount, Spec

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_NUMBERS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)


@dataclass(slots=True)
class Place:
    """Where operations work: the detached root, the mounts handed over by name, the host's cgroup hierarchies."""

    root: int
    handed: dict[str, int]
    cgroups: Cgroups
    empty: int = -1
    notes: list[str] = field(default_factory=list)

    def empty_folder(self) -> int:
        """A read-only, empty folder as a detached mount. The first must be attached before the next is asked for.

        Before Linux 6.15 a detached mount cannot be cloned (EINVAL), so the later ones are clones of the first.
        """
        if self.empty < 0:
            self.empty = mounts.make("tmpfs", ("size=0", "nr_inodes=2", "mode=555"), MOUNT_ATTR_RDONLY)
            return os.dup(self.empty)
        return mounts.clone("", dir_fd=self.empty)


class Operation(Protocol):
    """One step; equal ones do the same."""

    @property
    def target(self) -> str:
        """Where, as a path in the image's root."""

    def execute(self, place: Place) -> None:
        """Carry it out; raises OSError with the path."""

    def describe(self) -> str:
        """One line for people."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A new file system. With `copy_up` what the image has at that place is copied into it."""

    target: str
    fstype: str
    source: str = ""
    data: tuple[str, ...] = ()
    attrs: int = 0
    copy_up: bool = False
    propagation: int = 0

    def execute(self, place: Place) -> None:
        """Mount it."""
        made = mounts.make(self.fstype, self.data, 0 if self.copy_up else self.attrs, source=self.source or self.fstype)
        target = target_of(place, self.target, self.fstype)
        if self.copy_up:
            copyup.copy(target, made)
            mounts.add_attributes(made, self.attrs)
        if self.propagation:
            mounts.set_propagation(made, self.propagation)
        mounts.attach(made, target)

    def describe(self) -> str:
        """One line."""
        return f"mount {self.fstype} on {self.target}"


@dataclass(frozen=True, slots=True)
class Node:
    """A device node made in place, where the container has the host's ids."""

    target: str
    kind: int
    device: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def execute(self, place: Place) -> None:
        """Make it; one that is there must be the same."""
        path = PurePosixPath(self.target)
        folder = mounts.target_inside(place.root, str(path.parent), folder=True)
        try:
            with contextlib.suppress(FileExistsError):
                os.mknod(path.name, self.kind | self.mode, self.device, dir_fd=folder)
            self._adjust(os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder))
        finally:
            os.close(folder)

    def _adjust(self, fd: int) -> None:
        """By descriptor: who shares the folder could put a link to a file of the host's in the node's place."""
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != self.kind or found.st_rdev != self.device:
                raise FileExistsError(errno.EEXIST, "another file is there", self.target)
            os.chown(f"/proc/self/fd/{fd}", self.uid, self.gid)
            Path(f"/proc/self/fd/{fd}").chmod(self.mode)
        finally:
            os.close(fd)

    def describe(self) -> str:
        """One line."""
        return f"make the device {self.target}"


@dataclass(frozen=True, slots=True)
class Handed:
    """A mount that the privileged side made and handed over as a descriptor.

    With `seed` what the image has at that place is copied into it when it is empty; `attrs` are set after that.
    """

    target: str
    name: str
    attrs: int = 0
    seed: bool = False

    def execute(self, place: Place) -> None:
        """Attach it; a missing target is made as what the mount is, a folder or a file."""
        mount = place.handed.pop(self.name)
        target = target_of(place, self.target, self.name, folder=mounts.is_folder(mount))
        if self.seed:
            copyup.seed(target, mount)
        if self.attrs:
            mounts.add_attributes(mount, self.attrs)
        mounts.attach(mount, target)

    def describe(self) -> str:
        """One line."""
        return f"attach {self.name} on {self.target}"


@dataclass(frozen=True, slots=True)
class CgroupView:
    """The container's own groups: one file system on v2, one for each controller on v1.

    `group` is its path for a container in the host's cgroup namespace, which sees its folders alone.
    """

    target: str
    attrs: int
    group: str = ""

    def execute(self, place: Place) -> None:
        """Mount what the host has."""
        if isinstance(place.cgroups, V2):
            made = self._bound(place.cgroups.root) if self.group else mounts.make("cgroup2", (), self.attrs, "cgroup2")
            mounts.attach(made, mounts.target_inside(place.root, self.target, folder=True))
        elif isinstance(place.cgroups, V1):
            self._hierarchies(place, place.cgroups)

    def _hierarchies(self, place: Place, cgroups: V1) -> None:
        top = mounts.make("tmpfs", ("mode=755", "size=0"), self.attrs & ~MOUNT_ATTR_RDONLY)
        names: dict[Path, list[str]] = {}
        for controller, mount in cgroups.mounts.items():
            if (mount / self.group).is_dir() if self.group else controller in CONTROLLERS:
                names.setdefault(mount, []).append(controller)
        for controllers in names.values():
            folder = ",".join(sorted(controllers))
            os.mkdir(folder, 0o755, dir_fd=top)
            for alias in controllers if len(controllers) > 1 else ():
                os.symlink(folder, alias, dir_fd=top)
        view = os.dup(top)
        mounts.attach(top, mounts.target_inside(place.root, self.target, folder=True))
        for mount, controllers in names.items():
            part = self._bound(mount) if self.group else mounts.make("cgroup", controllers, self.attrs, source="cgroup")
            mounts.attach(part, mounts.open_inside(view, ",".join(sorted(controllers))))
        mounts.add_attributes(view, self.attrs)
        os.close(view)

    def _bound(self, hierarchy: Path) -> int:
        clone = mounts.clone(hierarchy / self.group)
        mounts.add_attributes(clone, self.attrs, private=True)
        return clone

    def describe(self) -> str:
        """One line."""
        return f"mount the container's cgroups on {self.target}"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str
    to: str

    def execute(self, place: Place) -> None:
        """Make it; one that is there stays."""
        folder = mounts.open_inside(place.root, str(PurePosixPath(self.target).parent))
        with contextlib.suppress(FileExistsError):
            os.symlink(self.to, PurePosixPath(self.target).name, dir_fd=folder)
        os.close(folder)

    def describe(self) -> str:
        """One line."""
        return f"link {self.target} to {self.to}"


@dataclass(frozen=True, slots=True)
class Mask:
    """Hide a path: a folder under an empty one, a file under /dev/null; nothing where it is missing."""

    target: str

    def execute(self, place: Place) -> None:
        """Cover it."""
        try:
            target = mounts.open_inside(place.root, self.target)
        except (FileNotFoundError, NotADirectoryError):
            return
        cover = place.empty_folder() if mounts.is_folder(target) else _null(place)
        mounts.attach(cover, target)

    def describe(self) -> str:
        """One line."""
        return f"mask {self.target}"


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Make a path read-only; nothing where it is missing."""

    target: str

    def execute(self, place: Place) -> None:
        """Cover it by a read-only clone of itself."""
        try:
            target = mounts.open_inside(place.root, self.target)
        except (FileNotFoundError, NotADirectoryError):
            return
        copy = mounts.clone("", dir_fd=target, recursive=True)
        mounts.add_attributes(copy, MOUNT_ATTR_RDONLY, recursive=True)
        mounts.attach(copy, target)

    def describe(self) -> str:
        """One line."""
        return f"make {self.target} read-only"


def target_of(place: Place, path: str, what: str, *, folder: bool = True) -> int:
    """Where to mount; `what` is a file system's type, or a name of a mount that was handed over."""
    if what in ("proc", "sysfs"):
        return mounts.plain_folder_inside(place.root, path)
    return mounts.target_inside(place.root, path, folder=folder)


def _null(place: Place) -> int:
    """The container's /dev/null, looked at: over one that is a link to another file that file would be the mask (CVE-2025-31133)."""
    fd = mounts.open_inside(place.root, "/dev/null")
    try:
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(*_NUMBERS["null"]):
            raise OSError(errno.ENODEV, "/dev/null of the container is not the null device")
        return mounts.clone("", dir_fd=fd)
    finally:
        os.close(fd)


def operations(spec: Spec) -> list[Operation]:
    """The mounts of a container in order: the spec's, devices and links in /dev, then masks and read-only paths."""
    found: list[Operation] = []
    lent = spec.linux.namespace("user") is not None
    for index, mount in enumerate(spec.mounts):
        found.append(_mount(spec, mount, index))
        if mount.destination == "/dev" and not is_bind(mount):
            found.extend(
                Handed(f"/dev/{name}", f"device:/dev/{name}")
                if lent
                else Node(f"/dev/{name}", stat.S_IFCHR, os.makedev(*_NUMBERS[name]))
                for name in DEVICES
            )
            found.extend(Link(f"/dev/{name}", to) for name, to in _LINKS)
    found.extend(
        Handed(device.path, f"device:{device.path}") if lent or not has_number(device) else node(device)
        for device in spec.linux.devices
        if device.path != "/dev/ptmx"  # which is the link to its own devpts
    )
    found.extend(Mask(path) for path in spec.linux.masked_paths)
    found.extend(ReadOnly(path) for path in spec.linux.readonly_paths)
    return found


def is_bind(mount: Mount) -> bool:
    """Whether a mount shows a file or folder of the host's, or a volume."""
    return mount.type == "bind" or mountoptions.parse(mount.options).bind


def has_number(device: Device) -> bool:
    """Whether a node can be made; else the host's is lent."""
    return device.major is not None or device.type == "p"


def node(device: Device) -> Node:
    """The node of a device with numbers; raises SpecFault for what is no device."""
    major, minor = device.major or 0, device.minor or 0
    if device.type not in _KINDS or not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise SpecFault(
            f"linux.devices has {device.path[:200]} of type {device.type[:40]!r}, {major}:{minor}.",
            f"Types are {', '.join(_KINDS)}; the kernel has majors of 12 bits and minors of 20.",
        )
    mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
    return Node(device.path, _KINDS[device.type], os.makedev(major, minor), mode, device.uid, device.gid)


def lends_sysfs(spec: Spec) -> bool:
    """Whether sysfs is handed over: only who rules a network namespace may mount it, a container's root its own alone."""
    network = spec.linux.namespace("network")
    own = network is not None and not network.path
    return spec.linux.namespace("user") is not None and not own


def _mount(spec: Spec, mount: Mount, index: int) -> Operation:
    options = mountoptions.parse(mount.options)
    if is_bind(mount):
        return Handed(mount.destination, f"bind:{index}", options.attrs if options.seed else 0, options.seed)
    if mount.type == "sysfs" and lends_sysfs(spec):
        return Handed(mount.destination, "sysfs")
    if mount.type in ("cgroup", "cgroup2"):
        own = spec.linux.namespace("cgroup")
        return CgroupView(mount.destination, options.attrs, "" if own else spec.linux.cgroups_path)
    return _fresh(mount, options)


def _fresh(mount: Mount, options: MountOptions) -> Fresh:
    copy_up = options.copy_up and mount.type == "tmpfs"
    return Fresh(
        mount.destination, mount.type, mount.source, options.data, options.attrs, copy_up, options.propagation
    )  # fmt: skip


def carry_out(plan: Sequence[Operation], place: Place) -> None:
    """All of them; the error of one names it."""
    for operation in plan:
        try:
            operation.execute(place)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} ({operation.describe()})") from error


DEVICE_ATTRS = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
