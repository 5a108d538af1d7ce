"""Reading layers and containers' files in a confined child (`runtime.images.pack`): the engine itself opens none of them.

with Packing.layer(folder, recipe, spill) as packing:
    for chunk in packing:
        ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.images.extraction import PIPE_BYTES, ROOT, START
from runtime.images.format import ImageFault
from runtime.storage.driver import DiffPlan

CHUNK_BYTES = 1 << 20


class Packing:
    """One child, from start to end; iterate it once for its bytes. Raises ImageFault when it could not read everything."""

    def __init__(self, options: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        command = [sys.executable, "-I", "-c", START.format("pack"), str(ROOT), json.dumps(options)]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=descriptors,
            bufsize=0,
            pipesize=PIPE_BYTES,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )

    @classmethod
    def layer(cls, folder: Path, recipe: int, spill: int) -> Self:
        """The tar of a layer, as it was."""
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            options = {"what": "layer", "root": root, "recipe": recipe, "spill": spill}
            return cls(options, tuple(fd for fd in (root, recipe, spill) if fd >= 0))
        finally:
            os.close(root)

    @classmethod
    def container(cls, plan: DiffPlan, what: str) -> Self:
        """A container's files: "export" all of them, "diff" a layer of what it changed, "changes" a JSON line for each path."""
        return cls({"what": what, "plan": plan.to_json()})

    def __iter__(self) -> Iterator[bytes]:
        assert self._child.stdout is not None
        while chunk := self._child.stdout.read(CHUNK_BYTES):
            yield chunk
        if self._child.wait() != 0:
            raise self._fault()

    def _fault(self) -> ImageFault:
        self._errors.seek(0)
        text = self._errors.read(65536)
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(text)
            return ImageFault(str(answer["fault"]), str(answer.get("hint", "")))
        return ImageFault(f"The child that reads the files ended with status {self._child.returncode} and no answer.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._errors.close()
