"""Unpacking a layer in a confined child (`runtime.images.extract`): the engine itself never reads a layer's bytes.

with Extraction(nursery, folder, recipe, limits) as extraction:
    while chunk := source.read(1 << 20):
        extraction.write(chunk)
    unpacked = extraction.finish()
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.images.extract_layer import LayerLimits
from runtime.images.format import ImageFault, check_digest
from runtime.images.nursery import Nursery
from runtime.images.recipes import RecipeDraft
from runtime.kernel import syscalls

PIPE_BYTES = 1 << 20
_OPAQUE_XATTR = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What a layer turned out to be. `diff_id` is the digest of its `tar_bytes` plain bytes, `size_bytes` the sum of its files."""

    diff_id: str
    tar_bytes: int
    size_bytes: int
    entries: int
    compression: str


class Extraction:
    """One child, from start to end. Not thread-safe; the folder must be empty and stays as it is when something fails.

    `recipe` gets what is needed to make the same tar of the folder again.
    """

    def __init__(self, nursery: Nursery, folder: Path, recipe: RecipeDraft, limits: LayerLimits | None = None) -> None:
        self._recipe = recipe
        with ExitStack() as undo, ExitStack() as theirs:
            self._root = _own(undo, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            source, self._input = os.pipe2(os.O_CLOEXEC)
            self._output, answer = os.pipe2(os.O_CLOEXEC)
            for fd in (self._input, self._output):
                _own(undo, fd)
            for fd in (source, answer):
                _own(theirs, fd)
            with suppress(OSError):  # above the limit of the user's pipes
                fcntl.fcntl(self._input, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            files = {"root": self._root, "recipe": recipe.recipe, "spill": recipe.spill}
            files |= {"stdin": source, "stdout": answer}
            self._child = nursery.start("extract", dataclasses.asdict(limits or LayerLimits()), files)
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Hand over the next bytes; raises ImageFault when the child has refused the layer."""
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._input, view) :]
        except BrokenPipeError:
            self.finish()
            raise ImageFault("The layer is followed by something else.", "Save the image again.") from None

    def finish(self) -> Unpacked:
        """All bytes were handed over; raises ImageFault when the layer is refused."""
        self._input = _close(self._input)
        text = b""
        while more := os.read(self._output, PIPE_BYTES):
            text += more
        self._child.wait()
        answer = _answer(text)
        for path in answer["opaque"]:
            self._make_opaque(path)
        self._recipe.finish(int(answer["tar_bytes"]))
        return Unpacked(
            diff_id=check_digest(answer["diff_id"], "The unpacking child"),
            tar_bytes=int(answer["tar_bytes"]),
            size_bytes=int(answer["size_bytes"]),
            entries=int(answer["entries"]),
            compression=str(answer["compression"]),
        )

    def close(self) -> None:
        """End the child if it still runs; harmless afterwards."""
        self._child.end()
        self._input, self._output, self._root = (_close(fd) for fd in (self._input, self._output, self._root))

    def _make_opaque(self, path: str) -> None:
        """Only CAP_SYS_ADMIN may set this attribute, so the child leaves it to us; no link leads out of the layer."""
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        fd = syscalls.openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
        try:
            os.setxattr(fd, _OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)


def _own(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _close(fd: int) -> int:
    """Close an open descriptor; what its holder remembers from then on."""
    if fd >= 0:
        os.close(fd)
    return -1


def _answer(text: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ImageFault("The child that unpacks the layer ended without an answer.") from None
    if "fault" not in answer:
        return answer
    if answer.get("errno") in {errno.ENOSPC, errno.EDQUOT}:
        raise ImageFault("The disk is full: the layer does not fit.", "Remove images that are no longer needed.")
    raise ImageFault(str(answer["fault"]), str(answer.get("hint", "")))
