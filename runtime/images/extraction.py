"""Unpacking a layer in a confined child (`runtime.images.extract`): the engine itself never reads a layer's bytes.

with Extraction(folder, recipe, limits) as extraction:
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
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.images.extract_layer import LayerLimits
from runtime.images.format import ImageFault, check_digest
from runtime.images.recipes import RecipeDraft
from runtime.kernel import syscalls

PIPE_BYTES = 1 << 20
ROOT = Path(__file__).resolve().parent.parent.parent
# -I ignores the environment and the working folder; the way to this code is given as text
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.images.{} import main; main()"
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

    def __init__(self, folder: Path, recipe: RecipeDraft, limits: LayerLimits | None = None) -> None:
        self._recipe = recipe
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        files = {"root": self._root, "recipe": recipe.recipe, "spill": recipe.spill}
        options = dataclasses.asdict(limits or LayerLimits()) | files
        command = [sys.executable, "-I", "-c", START.format("extract"), str(ROOT), json.dumps(options)]
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=tuple(files.values()),
                bufsize=0,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            )
        except BaseException:
            os.close(self._root)
            raise
        assert self._child.stdin is not None
        with suppress(OSError):  # above the limit of the user's pipes
            fcntl.fcntl(self._child.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Hand over the next bytes; raises ImageFault when the child has refused the layer."""
        assert self._child.stdin is not None
        view = memoryview(data)
        try:
            while len(view):
                view = view[self._child.stdin.write(view) or 0 :]
        except BrokenPipeError:
            self.finish()
            raise ImageFault("The layer is followed by something else.", "Save the image again.") from None

    def finish(self) -> Unpacked:
        """All bytes were handed over; raises ImageFault when the layer is refused."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        text = self._child.stdout.read()
        status = self._child.wait()
        answer = _answer(text, status)
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
        if self._child.returncode is None:
            self._child.kill()
            self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _make_opaque(self, path: str) -> None:
        """Only CAP_SYS_ADMIN may set this attribute, so the child leaves it to us; no link leads out of the layer."""
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        fd = syscalls.openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
        try:
            os.setxattr(fd, _OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)


def _answer(text: bytes, status: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ImageFault(f"The child that unpacks the layer ended with status {status} and no answer.") from None
    if "fault" not in answer:
        return answer
    if answer.get("errno") in {errno.ENOSPC, errno.EDQUOT}:
        raise ImageFault("The disk is full: the layer does not fit.", "Remove images that are no longer needed.")
    raise ImageFault(str(answer["fault"]), str(answer.get("hint", "")))
