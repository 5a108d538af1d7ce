"""The child that reads a volume out, or fills a fresh one: `python -m runtime.storage.volumecopy`, started by the engine.

It works in a mount namespace of its own, so that nothing it mounts outlives it. Argument: a JSON object with `do` (copy, read,
fill or thaw), `folder` (of a volume, or of a copy of one), and what each needs. Problems go to standard error, exit status 1.

- copy: freeze the volume's file system where it is mounted, copy its file to `target`, thaw. Shares blocks where the host can.
- read: the content as frames on standard output: four bytes of length, a chunk of `volumetar`; a length of 0 is the end.
- fill: unpack the tar on standard input into the empty volume; its digest and size as JSON on standard output.
- thaw: let a file system go on that a killed copy left frozen.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.images.confinement import confine
from runtime.images.extract_layer import LayerLimits
from runtime.images.extraction import Extraction
from runtime.images.nursery import Nursery
from runtime.images.recipes import RecipeDraft
from runtime.kernel import loop, mounts, syscalls
from runtime.oci.volumes import image_mount
from runtime.storage import ext4
from runtime.storage.volumeplan import DATA, IMAGE, INSIDE, VolumePlan
from runtime.storage.volumetar import Cutter, TreeTar

_FIFREEZE, _FITHAW, _FICLONE = 0xC0045877, 0xC0045878, 0x40049409
FRAME = struct.Struct(">I")
_MAX_FILE = 1 << 44


def _mounted(folder: Path, clusters: int) -> int:
    """A descriptor of the top of a sized volume's file system, mounted in this namespace alone."""
    mount = image_mount(VolumePlan(destination="", folder=str(folder), sized=True, reserved_clusters=clusters))
    syscalls.move_mount(mount, syscalls.AT_FDCWD, folder / DATA)
    return mount


def _content(options: dict[str, Any]) -> int:
    """A descriptor of the volume's own folder."""
    folder = Path(options["folder"])
    if not options["sized"]:
        return os.open(folder / DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    mount = _mounted(folder, options["clusters"])
    return mounts.open_inside(mount, INSIDE, flags=os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, links=False)


def copy(options: dict[str, Any]) -> None:
    """See the module. A file system nobody has mounted is not frozen; the caller lets nobody mount it meanwhile."""
    folder, target = Path(options["folder"]), Path(options["target"])
    if loop.find(folder / IMAGE) is None:
        _copy_file(folder / IMAGE, target)
        return
    top = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=_mounted(folder, options["clusters"]))
    fcntl.ioctl(top, _FIFREEZE, 0)
    try:
        _copy_file(folder / IMAGE, target)
    finally:
        fcntl.ioctl(top, _FITHAW, 0)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as old:
        os.fsync(old.fileno())  # what the loop device wrote is in this file's pages
        with target.open("xb") as new, contextlib.suppress(OSError):
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return
    target.unlink()
    ext4.copy_sparse(source, target)


def thaw(options: dict[str, Any]) -> None:
    """See the module."""
    folder = Path(options["folder"])
    if loop.find(folder / IMAGE) is None:
        return
    top = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=_mounted(folder, options["clusters"]))
    with contextlib.suppress(OSError):  # EINVAL: it was not frozen
        fcntl.ioctl(top, _FITHAW, 0)


def read(options: dict[str, Any]) -> None:
    """See the module. Before the first file is opened this process can do nothing but read below the volume."""
    top = _content(options)
    out = sys.stdout.buffer
    confine(top, 0, ("CAP_DAC_OVERRIDE",))

    def frame(chunk: bytes) -> None:
        out.write(FRAME.pack(len(chunk)) + chunk)

    TreeTar(Cutter(frame)).write(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    out.write(FRAME.pack(0))
    out.flush()


def fill(options: dict[str, Any]) -> None:
    """See the module. The tar is unpacked by a confined child of this one."""
    top = _content(options)
    place = Path(options["folder"], DATA, INSIDE if options["sized"] else "")
    limits = LayerLimits(max_bytes=_MAX_FILE, ratio=100_000, whiteouts=False)
    recipe = RecipeDraft(Path(options["folder"], "recipe"))  # of no use here, and gone with the draft
    with Nursery() as nursery, Extraction(nursery, place, recipe, limits) as extraction:
        while piece := os.read(0, 1 << 20):
            extraction.write(piece)
        unpacked = extraction.finish()
    syscalls.syncfs(top)
    print(json.dumps({"digest": unpacked.diff_id, "size_bytes": unpacked.size_bytes, "entries": unpacked.entries}))


def main() -> int:
    """Run as the child."""
    options = json.loads(sys.argv[1])
    try:
        os.unshare(syscalls.CLONE_NEWNS)
        mounts.make_private()
        {"copy": copy, "read": read, "fill": fill, "thaw": thaw}[options["do"]](options)
    except BrokenPipeError:
        os._exit(1)
    except (OSError, RuntimeFault) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
