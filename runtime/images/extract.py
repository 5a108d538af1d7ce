"""The child that unpacks one layer, started by `runtime.images.extraction` in a nursery.

Standard input is the layer, plain or compressed. Its options are the limits, `root`, the descriptor of the empty target, and
`recipe` and `spill`, those of the files that say how to make the same tar of it again. Before the first byte is read the
process is chrooted into the target and has lost everything but the rights to write files for any owner. Standard output is
one JSON object: what was unpacked, or the fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

from runtime.images.confinement import confine
from runtime.images.extract_layer import LayerLimits, LayerWriter
from runtime.images.format_digest import ImageFault
from runtime.images.format_stream import StreamLimits, Unpacker
from runtime.images.format_tar import TarLimits, TarReader
from runtime.images.recipe import RecipeWriter

KEPT_CAPABILITIES = tuple(f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"))
CHUNK_BYTES = 1 << 20
_QUEUED = 8


class _Pipeline:
    """Reads, decompresses and hashes in a thread of its own while the caller writes files."""

    def __init__(self, source: int, limits: StreamLimits) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED)
        self._hash = hashlib.sha256()
        self.unpacker = Unpacker(limits)
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def diff_id(self) -> str:
        """Digest of the plain bytes, once all were read."""
        return f"sha256:{self._hash.hexdigest()}"

    def pieces(self) -> Iterator[bytes]:
        """The plain bytes; raises what the thread ran into."""
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _run(self) -> None:
        try:
            while chunk := os.read(self._source, CHUNK_BYTES):
                self._pass_on(self.unpacker.feed(chunk))
            self._pass_on(self.unpacker.close())
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001  (it is raised again in the main thread)
            self._queue.put(error)

    def _pass_on(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            self._queue.put(piece)


def unpack(root: int, source: int, limits: LayerLimits, recipe: int, spill: int) -> dict[str, Any]:
    """Unpack the layer on `source` below `root`; returns what `extraction.Unpacked` holds."""
    notes = RecipeWriter(lambda data: _write(recipe, data))
    writer = LayerWriter(root, limits, notes, spill)
    bounds = TarLimits(entries=limits.max_entries, file_bytes=limits.max_bytes)
    reader = TarReader(writer, bounds, raw=notes.raw)
    # headers and padding come on top of the files' bytes
    stream = StreamLimits(max_bytes=limits.max_bytes + limits.max_entries * 2048, ratio=limits.ratio)
    pipeline = _Pipeline(source, stream)
    for piece in pipeline.pieces():
        reader.feed(piece)
    reader.close()
    writer.close()
    notes.close()
    return {
        "diff_id": pipeline.diff_id,
        "tar_bytes": pipeline.unpacker.given_bytes,
        "size_bytes": writer.size_bytes,
        "entries": reader.entries,
        "compression": pipeline.unpacker.compression,
        "opaque": [os.fsdecode(path) for path in writer.opaque],
    }


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]


def main(options: dict[str, Any]) -> None:
    """Run as the child: confine, unpack, answer."""
    root, recipe, spill = (options.pop(name) for name in ("root", "recipe", "spill"))
    limits = LayerLimits(**options)
    answer: dict[str, Any]
    try:
        confine(root, limits.max_bytes, KEPT_CAPABILITIES)
        answer = unpack(root, 0, limits, recipe, spill)
    except ImageFault as fault:
        answer = {"fault": fault.message, "hint": fault.hint}
    except MemoryError:
        answer = {
            "fault": "The layer needs more memory to unpack than it may take.",
            "hint": "It was refused as a bomb.",
        }
    except OSError as error:
        answer = {"fault": f"The layer could not be written: {error.strerror}.", "errno": error.errno}
    os.write(1, json.dumps(answer).encode())
    os._exit(0)
