"""What a parked init mounts before it knows its container: `/dev`, `/proc` and `/sys`, which are the same for all.

They wait on a small tmpfs and are moved into the image's root, masks and all, when there is one. A configuration that wants
anything else there, a device or a volume below `/dev`, say, fits no stage and is mounted from the beginning.
"""

from __future__ import annotations

import json
import os

from runtime.dataclass import dataclass
from runtime.kernel import mounts
from runtime.kernel.cgroups import Cgroups
from runtime.kernel.cgroups.v2 import V2
from runtime.oci import mountplan
from runtime.oci.mountplan import CgroupView, Handed, Operation, Place
from runtime.oci.spec import Spec

type Plan = tuple[Operation, ...]

_TOPS = ("/dev", "/proc", "/sys")
_STAGE = ("mode=755", "size=64k")


@dataclass(frozen=True, slots=True)
class Stage:
    """Roots of the mounts that wait, by where they belong; `layers` of old root lie below, two where it could not be let go."""

    tops: dict[str, int]
    layers: int

    def move_below(self, root: int) -> None:
        """Into the image's root; all descriptors are closed."""
        for top, fd in self.tops.items():
            plain = top != "/dev"  # whose parts are all moved with it
            target = mounts.plain_folder_inside(root, top) if plain else mounts.target_inside(root, top, folder=True)
            mounts.attach(fd, target)


def tops(cgroups: Cgroups) -> tuple[str, ...]:
    """What can wait. On v2 the init, whose processes `/proc` shows, is cloned later."""
    return tuple(top for top in _TOPS if not (isinstance(cgroups, V2) and top == "/proc"))


def ahead(spec: Spec, cgroups: Cgroups) -> Plan:
    """The operations of a configuration that a stage can have; none when binds lie among them."""
    wanted = [op for op in mountplan.operations(spec) if _top(op) in tops(cgroups)]
    if any(isinstance(op, Handed) and op.name.startswith("bind:") for op in wanted):
        return ()
    return tuple(op for op in wanted if not isinstance(op, CgroupView))


def late(spec: Spec, done: Plan) -> list[Operation]:
    """What is left of a configuration's operations, in their order."""
    made = frozenset(done)
    return [op for op in mountplan.operations(spec) if op not in made]


def rehearse(spec: Spec, done: Plan) -> None:
    """Read a specification like one that will come: memory that a fork shares is copied at the first touch, now."""
    late(Spec.parse(json.loads(json.dumps(spec.to_json()))), done)


def build(plan: Plan, handed: dict[str, int], cgroups: Cgroups) -> None:
    """Mount `plan` on a tmpfs over the root of this process's own mount namespace.

    With `/proc` among it nothing of the host's is needed any more and its mounts are let go, so that a parked init keeps no
    file system busy. A new `/proc` is only granted to who sees one (mount_too_revealing, fs/namespace.c).
    """
    root = mounts.make("tmpfs", _STAGE, source="tmpfs")
    mounts.attach_root(root)
    mountplan.carry_out(plan, Place(root, handed, cgroups))
    if "/proc" in tops(cgroups):
        mounts.enter_root(root)
    os.close(root)


def find(cgroups: Cgroups) -> Stage:
    """The stage that lies over this process's root."""
    root = mounts.open_top()
    try:
        found = {top: mounts.open_inside(root, top) for top in tops(cgroups)}
        return Stage(found, 1 if "/proc" in found else 2)
    finally:
        os.close(root)


def _top(operation: Operation) -> str:
    return "/" + operation.target.lstrip("/").partition("/")[0]
