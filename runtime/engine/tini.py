"""`--init`: the distribution's tini as process 1 of a container, which reaps what the program leaves and hands signals on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runtime.engine.errors import Invalid
from runtime.oci.spec import Mount

PROGRAM = Path("/usr/bin/tini-static")  # linked statically: it runs in whatever image
INSIDE = "/sbin/docker-init"  # where Docker has it


def provided(home: Path) -> Path:
    """The engine's own copy, as old as the program: the store's file system can show it with a container's ids, others may not.

    Raises Invalid when there is none on this host."""
    copy = home / "docker-init"
    try:
        wanted = PROGRAM.stat()
    except FileNotFoundError as error:
        if copy.exists():
            return copy
        raise Invalid(
            f"--init needs {PROGRAM}, which is not on this host.", "Install the package tini, or leave --init out."
        ) from error
    if not copy.exists() or copy.stat().st_mtime_ns != wanted.st_mtime_ns:
        draft = copy.with_name(f".docker-init.{os.getpid()}")
        shutil.copy2(PROGRAM, draft)
        draft.chmod(0o755)
        draft.rename(copy)
    return copy


def mount(home: Path) -> Mount:
    """The program as containers see it; raises Invalid."""
    return Mount(destination=INSIDE, type="bind", source=str(provided(home)), options=("bind", "rprivate", "ro"))


def before(args: tuple[str, ...]) -> tuple[str, ...]:
    """The command line with tini before it."""
    return (INSIDE, "--", *args)
