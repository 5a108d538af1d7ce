"""What the init mounts, as a list of small operations: made from the spec, printable, carried out inside its namespaces.

Targets are resolved inside the image's root (mounts.open_inside), by the init alone, with the container's own ids.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from runtime.kernel import mounts
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v1 import V1
from runtime.kernel.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runtime.oci.spec import Spec

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
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
    """A new file system."""

    target: str
    fstype: str
    data: tuple[str, ...] = ()
    attrs: int = 0

    def execute(self, place: Place) -> None:
        """Mount it."""
        made = mounts.make(self.fstype, self.data, self.attrs, source=self.fstype)
        mounts.attach(made, mounts.target_inside(place.root, self.target, folder=True))

    def describe(self) -> str:
        """One line."""
        return f"mount {self.fstype} on {self.target}"


@dataclass(frozen=True, slots=True)
class Handed:
    """A mount that the privileged side made and handed over as a descriptor."""

    target: str
    name: str

    def execute(self, place: Place) -> None:
        """Attach it; a missing target is made as what the mount is, a folder or a file."""
        mount = place.handed.pop(self.name)
        mounts.attach(mount, mounts.target_inside(place.root, self.target, folder=mounts.is_folder(mount)))

    def describe(self) -> str:
        """One line."""
        return f"attach {self.name} on {self.target}"


@dataclass(frozen=True, slots=True)
class CgroupView:
    """The container's own groups, read-only: one file system on v2, one for each controller on v1."""

    target: str
    attrs: int

    def execute(self, place: Place) -> None:
        """Mount what the host has."""
        if not isinstance(place.cgroups, V1):
            Fresh(self.target, "cgroup2", (), self.attrs).execute(place)
            return
        top = mounts.make("tmpfs", ("mode=755", "size=0"), self.attrs & ~MOUNT_ATTR_RDONLY)
        names: dict[str, list[str]] = {}
        for controller, mount in place.cgroups.mounts.items():
            names.setdefault(str(mount), []).append(controller)
        for controllers in names.values():
            folder = ",".join(sorted(controllers))
            os.mkdir(folder, 0o755, dir_fd=top)
        view = os.dup(top)
        mounts.attach(top, mounts.target_inside(place.root, self.target, folder=True))
        for controllers in names.values():
            part = mounts.make("cgroup", controllers, self.attrs, source="cgroup")
            mounts.attach(part, mounts.open_inside(view, ",".join(sorted(controllers))))
        mounts.add_attributes(view, self.attrs)
        os.close(view)

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
        cover = place.empty_folder() if mounts.is_folder(target) else _inside(place, "/dev/null")
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


def _inside(place: Place, path: str) -> int:
    fd = mounts.open_inside(place.root, path)
    try:
        return mounts.clone("", dir_fd=fd)
    finally:
        os.close(fd)


def operations(spec: Spec) -> list[Operation]:
    """The mounts of a container in order: the spec's, devices and links in /dev, then masks and read-only paths."""
    found: list[Operation] = []
    for index, mount in enumerate(spec.mounts):
        attrs, data = mounts.split_options(mount.options)
        if mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options:
            found.append(Handed(mount.destination, f"bind:{index}"))
        elif mount.type == "sysfs":
            found.append(Handed(mount.destination, "sysfs"))
        elif mount.type in ("cgroup", "cgroup2"):
            found.append(CgroupView(mount.destination, attrs))
        else:
            found.append(Fresh(mount.destination, mount.type, tuple(data), attrs))
        if mount.destination == "/dev":
            found.extend(Handed(f"/dev/{name}", f"device:/dev/{name}") for name in DEVICES)
            found.extend(Link(f"/dev/{name}", to) for name, to in _LINKS)
    found.extend(Handed(device.path, f"device:{device.path}") for device in spec.linux.devices)
    found.extend(Mask(path) for path in spec.linux.masked_paths)
    found.extend(ReadOnly(path) for path in spec.linux.readonly_paths)
    return found


def carry_out(plan: Sequence[Operation], place: Place) -> None:
    """All of them; the error of one names it."""
    for operation in plan:
        try:
            operation.execute(place)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} ({operation.describe()})") from error


DEVICE_ATTRS = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
SYSFS_ATTRS = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
