"""A root made by fuse-overlayfs(1): a program that serves the container's file system for as long as it is mounted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runtime.kernel import mounts, syscalls
from runtime.oci.fields import SpecFault
from runtime.storage.driver import RootPlan

DRIVER = PROGRAM = "fuse-overlayfs"
_IDS, _TARGET = 65_536, "m"


def mount(plan: RootPlan, root_id: int) -> int:
    """The root as a detached mount; the paths of the plan are relative to the current folder.

    The program maps ids itself: what it finds on disk as 0 is `root_id` to the container's users. It goes into the background
    once it serves, and ends with the last mount; this namespace keeps none.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise SpecFault(
            f"{PROGRAM} is not installed.", "Install it, or start the engine with another --storage-driver."
        )
    for folder in (plan.upper, plan.work):
        Path(folder).mkdir(mode=0o755, exist_ok=True)
    mapping = f"0:{root_id}:{_IDS}"
    options = [
        f"lowerdir={':'.join(plan.lowers)}",
        f"upperdir={plan.upper}",
        f"workdir={plan.work}",
        f"uidmapping={mapping}",
        f"gidmapping={mapping}",
        "allow_other,default_permissions,suid,dev,writeback=0",
        *(["ro"] if plan.readonly else []),
    ]
    target = str(Path(plan.upper).with_name(_TARGET))  # not above what it reads, or it would wait for itself
    Path(target).mkdir(mode=0o755, exist_ok=True)
    _run([program, "-o", ",".join(options), target])
    root = mounts.clone(target)
    syscalls.umount2(target, syscalls.MNT_DETACH)
    if plan.readonly:
        mounts.add_attributes(root, syscalls.MOUNT_ATTR_RDONLY)
    return root


def _run(command: list[str]) -> None:
    """Until it has gone into the background; raises OSError with its last words."""
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    pid = os.posix_spawn(command[0], command, {"PATH": os.defpath}, file_actions=actions, setsid=True)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    os.set_blocking(reader, False)
    try:
        said = os.read(reader, 2048).decode(errors="replace").strip()
    except BlockingIOError:
        said = ""
    finally:
        os.close(reader)
    if status:
        raise OSError(0, f"{PROGRAM} ended with {os.waitstatus_to_exitcode(status)}: {said[-300:]}")
