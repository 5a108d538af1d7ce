"""Reading layers and containers' files in a confined child (`runtime.images.pack`): the engine itself opens none of them.

with Packing.layer(nursery, folder, recipe, spill) as packing:
    for chunk in packing:
        ...
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.images.format import ImageFault
from runtime.images.nursery import Nursery
from runtime.storage.driver import DiffPlan

CHUNK_BYTES = PIPE_BYTES = 1 << 20


class Packing:
    """One child, from start to end; iterate it once for its bytes. Raises ImageFault when it could not read everything."""

    def __init__(self, nursery: Nursery, options: dict[str, Any], descriptors: dict[str, int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._output, theirs = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # above the limit of the user's pipes
            fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            files = descriptors | {"stdout": theirs, "stderr": self._errors.fileno()}
            self._child = nursery.start("pack", options, files)
        except BaseException:
            os.close(self._output)
            self._errors.close()
            raise
        finally:
            os.close(theirs)

    @classmethod
    def layer(cls, nursery: Nursery, folder: Path, recipe: int, spill: int) -> Self:
        """The tar of a layer, as it was. `spill` is -1 for none."""
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            files = {"root": root, "recipe": recipe} | ({"spill": spill} if spill >= 0 else {})
            return cls(nursery, {"what": "layer"}, files)
        finally:
            os.close(root)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := os.read(self._output, CHUNK_BYTES):
            yield chunk
        self._child.wait()
        self._errors.seek(0)
        text = self._errors.read(65536)
        try:
            answer = json.loads(text)
        except ValueError:
            raise ImageFault("The child that reads the files ended without an answer.") from None
        if answer:
            raise ImageFault(str(answer["fault"]), str(answer.get("hint", "")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end()
        os.close(self._output)
        self._errors.close()


def read_container(plan: DiffPlan, what: str) -> Iterator[bytes]:
    """A container's files: "export" all of them, "diff" a layer of what it changed, "changes" a JSON line for each path."""
    with Nursery() as nursery, Packing(nursery, {"what": what, "plan": plan.to_json()}, {}) as packing:
        yield from packing
