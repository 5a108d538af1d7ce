"""Memory groups that are removed while pages are charged to them: the kernel keeps them until the pages go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.kernel import cgroups
from runtime.kernel.cgroups import Resources

BASE = Path("/sys/fs/cgroup")


def run_inside(path: str, *command: str, fds: Sequence[int] = ()) -> None:
    """Make the group and run a command in it to its end."""
    groups = cgroups.detect()
    groups.create(path, Resources())
    with ExitStack() as stack:
        doors = groups.doors(path)
        for door in doors:
            stack.callback(os.close, door)
        enter = "; ".join(f"echo 0 >&{door}" for door in doors)
        subprocess.run(
            ["bash", "-c", f'{enter}; exec "$@"', "bash", *command],
            pass_fds=[*doors, *fds],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def abandon(path: str) -> None:
    """Remove the folders of an empty group and give no page back."""
    for folder in [BASE / path] if cgroups.detect().version == 2 else BASE.glob(f"*/{path}"):
        folder.rmdir()


@contextmanager
def dying_groups(parent: str, count: int) -> Iterator[None]:
    """So many groups below `parent` that are gone but for the pages of a file in memory, which is gone in the end."""
    try:
        with ExitStack() as stack:
            for number in range(count):
                fd = os.memfd_create("pages")
                stack.callback(os.close, fd)
                path = f"{parent}/{number}"
                run_inside(
                    path, "dd", "if=/dev/zero", f"of=/proc/self/fd/{fd}", "bs=64k", "count=1", "status=none", fds=[fd]
                )
                abandon(path)
            yield
    finally:
        cgroups.detect().remove(parent)
