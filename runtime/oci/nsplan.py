"""Which namespaces a container has: made for it, joined by path, or the host's; and by which process they come about.

The usual container has all its own, made by one clone of the init. Whatever needs a process in between (one joins or unshares
and then clones the init, which alone is in a joined pid or time namespace) takes two steps; v2's clone into its group is such a
second step too.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.kernel import namespaces, syscalls
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v2 import V2
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Namespace, Spec

CLONED = ("user", "pid", "mount", "uts", "ipc")
KINDS = (*CLONED, "cgroup", "network", "time")


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """Kinds that are made, and joined ones with their paths.

    A joined network is not among them: the maker is in it before it clones anything (crew.py). `two_steps` says that a
    first process clones the init, `by_itself` that this process enters its namespaces after it was cloned.
    """

    made: tuple[str, ...]
    joined: tuple[tuple[str, str], ...]
    two_steps: bool
    by_itself: bool

    @classmethod
    def of(cls, spec: Spec, cgroups: Cgroups) -> NamespacePlan:
        """Of a configuration."""
        made = tuple(n.type for n in spec.linux.namespaces if not n.path)
        joined = tuple((n.type, n.path) for n in spec.linux.namespaces if n.path and n.type != "network")
        by_itself = bool(joined) or "time" in made
        usual = not by_itself and set(CLONED) <= set(made)
        return cls(made, joined, isinstance(cgroups, V2) or not usual, by_itself)

    def first_flags(self) -> int:
        """Clone flags of the first process."""
        return 0 if self.by_itself else namespaces.flags(kind for kind in self.made if kind not in self._later())

    def second_flags(self) -> int:
        """Clone flags of the init, where a first process clones it."""
        return syscalls.CLONE_NEWPID if "pid" in self.made else 0

    def _later(self) -> tuple[str, ...]:
        """The cgroup namespace is unshared in its groups; the pid namespace is for the second clone, if there is one."""
        return ("cgroup", "pid") if self.two_steps else ("cgroup",)

    def enter(self) -> None:
        """Join and unshare. The user namespace comes last as long as the host's rights reach the others, else first.

        A cgroup namespace is joined later, in the group: from inside it the way there could not be seen (`joined_path`).
        """
        late = []
        user = ""
        for kind, path in self.joined:
            if kind == "user":
                user = path
            if kind in ("user", "cgroup"):
                continue
            try:
                namespaces.join(Path(path), kind)
            except PermissionError:
                late.append((kind, path))
        if user:
            with contextlib.suppress(_AlreadyThere):
                _join_user(user)
        for kind, path in late:
            namespaces.join(Path(path), kind)
        os.unshare(namespaces.flags(kind for kind in self.made if kind not in ("cgroup", "pid")))

    def joined_path(self, kind: str) -> str:
        """Where a namespace to join is; "" for none."""
        return dict(self.joined).get(kind, "")


class _AlreadyThere(Exception):
    """The user namespace to join is the one this process is in."""


def _join_user(path: str) -> None:
    try:
        namespaces.join(Path(path), "user")
    except OSError as error:
        here, there = os.stat("/proc/self/ns/user"), os.stat(path)  # noqa: PTH116
        if error.errno == errno.EINVAL and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            raise _AlreadyThere from error
        raise


def check(spec: Spec) -> None:
    """Raise SpecFault for namespaces that are none, are listed twice, cannot be joined here, or lack their mappings."""
    linux = spec.linux
    kinds = [n.type for n in linux.namespaces]
    for n in linux.namespaces:
        _check_one(n)
        if kinds.count(n.type) > 1:
            raise SpecFault(f"linux.namespaces has {n.type!r} twice.", "List each once.")
    mount, user = linux.namespace("mount"), linux.namespace("user")
    if mount is None or mount.path:
        raise SpecFault(
            "A container needs a mount namespace of its own.", 'Put {"type": "mount"} into linux.namespaces.'
        )
    if user is None and (linux.uid_mappings or linux.gid_mappings):
        raise SpecFault("There are id mappings and no user namespace.", "Add the namespace, or leave the mappings out.")
    if user and user.path and (linux.uid_mappings or linux.gid_mappings):
        raise SpecFault("The user namespace that is joined has its mappings.", "Leave uidMappings and gidMappings out.")
    time = linux.namespace("time")
    if linux.time_offsets and (time is None or time.path):
        raise SpecFault("There are time offsets and no new time namespace.", 'Add {"type": "time"}.')


def _check_one(n: Namespace) -> None:
    if n.type not in KINDS:
        raise SpecFault(f"linux.namespaces has {n.type!r}, which is no namespace.", f"There are {', '.join(KINDS)}.")
    if not Path(f"/proc/self/ns/{namespaces.FILES.get(n.type, n.type)}").exists():
        raise SpecFault(f"This kernel has no {n.type} namespaces.", "Leave it out.")
    if n.path and not n.path.startswith("/"):
        raise SpecFault(f"The {n.type} namespace's path {n.path!r} is not absolute.", "Give the whole path.")
