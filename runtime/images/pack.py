"""The child that reads a tenant's files and writes a tar, started by `runtime.images.packing` in a nursery.

Its options say `what` and where to read. Standard output is the tar ("changes": JSON lines), standard error one
JSON object with the fault, if there was one. Before the first file is opened the process is
chrooted and has lost everything but the right to read any file.

    layer    `root` is a layer's folder, `recipe` and `spill` say how its tar was: the same bytes again
    export   `plan`: all of a container's files
    diff     `plan`: a layer of what a container changed, with whiteouts
    changes  `plan`: the paths it changed
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime.images.confinement import confine
from runtime.images.format_digest import ImageFault
from runtime.images.pack_mounts import open_view
from runtime.images.pack_tree import TreeWriter, changes, everything
from runtime.images.recipe import Content, Raw, Replaced, records
from runtime.storage.driver import DiffPlan

_COPY_BYTES, _ANSWER_BYTES = 1 << 20, 1 << 16  # the answer goes to a file
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = ("CAP_DAC_READ_SEARCH",)
READ_TRUSTED = ("CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")  # overlay's marks are trusted.* attributes


def write(data: bytes | memoryview) -> None:
    """To standard output."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(1, view) :]


class LayerTar:
    """Makes the tar of the layer in the working folder again; `write` gets its bytes."""

    def __init__(self, recipe: int, spill: int, write: Callable[[bytes], None]) -> None:
        self._recipe, self._spill, self._write = recipe, spill, write
        self._kept: dict[bytes, deque[int]] = {}  # where the content of replaced files lies, in their order

    def write(self) -> None:
        """All of it."""
        if self._spill >= 0:
            for record in records(self._recipe):
                if isinstance(record, Replaced):
                    self._kept.setdefault(record.path, deque()).append(record.offset)
        for record in records(self._recipe):
            if isinstance(record, Raw):
                self._write(record.data)
            elif isinstance(record, Content):
                self._content(record)

    def _content(self, record: Content) -> None:
        kept = self._kept.get(record.path)
        if kept:
            self._copy(self._spill, kept.popleft(), record.pieces)
        elif any(length for _, length in record.pieces):
            fd = os.open(record.path, _OPEN_FILE)
            try:
                self._copy(fd, 0, record.pieces)
            finally:
                os.close(fd)

    def _copy(self, fd: int, base: int, pieces: tuple[tuple[int, int], ...]) -> None:
        for offset, length in pieces:
            start, end = base + offset, base + offset + length
            while start < end:
                data = os.pread(fd, min(end - start, _COPY_BYTES), start)
                if not data:
                    raise ImageFault("A file of a layer is shorter than it was.", "Load or pull the image again.")
                self._write(data)
                start += len(data)


def run(options: dict[str, Any]) -> None:
    """Confine, then write what is wanted."""
    what = options["what"]
    if what == "layer":
        confine(options["root"], _ANSWER_BYTES, _READ)
        LayerTar(options["recipe"], options.get("spill", -1), write).write()
        return
    plan = DiffPlan.from_json(options["plan"])
    view = open_view(plan, merged=what == "export")
    confine(view, _ANSWER_BYTES, _READ if what == "export" else READ_TRUSTED)
    if what == "export":
        TreeWriter(write).write(everything())
    elif what == "diff":
        TreeWriter(write).write(changes(overlay=plan.overlay))
    else:
        for change in changes(overlay=plan.overlay):
            write(json.dumps([change.kind, os.fsdecode(change.path)]).encode() + b"\n")


def main(options: dict[str, Any]) -> None:
    """Run as the child."""
    answer: dict[str, Any] = {}
    try:
        run(options)
    except ImageFault as fault:
        answer = {"fault": fault.message, "hint": fault.hint}
    except BrokenPipeError:
        os._exit(1)
    except (OSError, MemoryError) as error:
        answer = {"fault": f"Files could not be read: {error}.", "hint": ""}
    os.write(2, json.dumps(answer).encode())
    os._exit(1 if answer else 0)
