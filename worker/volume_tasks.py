"""Backups and restores of this host's volumes: between the engine's streams and the portal's chunks, one at a time."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from backports import zstd

from worker.config import WorkerConfig
from worker.errors import EngineFault, WorkerFault
from worker.portal import Portal, UnixConnection
from worker.protocol import VolumeTask

log = logging.getLogger(__name__)

ENGINE_S = 600.0  # a copy of a large volume takes a while before its first byte comes
PORTAL_S = 60.0
GROUP = 64
LEVEL = 3
PIECE_BYTES = 1 << 20


class VolumeTasks:
    """Carries out what is asked for, in a thread. What was done is not done again while the portal still asks for it."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._busy = False
        self._over: set[tuple[str, int]] = set()

    def begin(self, tasks: tuple[VolumeTask, ...], done: Callable[[], None]) -> None:
        """Start the first that waits, unless one is under way; `done()` is called at its end."""
        asked = {(task.kind, task.id) for task in tasks}
        with self._lock:
            self._over &= asked
            following = next((task for task in tasks if (task.kind, task.id) not in self._over), None)
            if self._busy or following is None:
                return
            self._busy = True
        threading.Thread(target=self._run, args=(following, done), daemon=True, name="volume task").start()

    def _run(self, task: VolumeTask, done: Callable[[], None]) -> None:
        over = False
        try:
            over = carry_out(task, self._config)
        finally:
            with self._lock:
                self._busy = False
                if over:
                    self._over.add((task.kind, task.id))
        if over:
            done()  # else the next look, seconds from now, begins it again


def carry_out(task: VolumeTask, config: WorkerConfig) -> bool:
    """Do it and say how it went; False when the portal could not be told."""
    portal, engine = Portal(config, PORTAL_S), UnixConnection(str(config.engine_socket), ENGINE_S)
    try:
        reason = ""
        try:
            back_up(task, engine, portal) if task.kind == "backup" else restore(task, engine, portal)
        except EngineFault as error:
            reason = str(error)
        except (OSError, http.client.HTTPException) as error:
            reason = f"The stream of {task.volume} broke off: {error or type(error).__name__}."
        if reason:
            log.warning("%s %s: %s", task.kind, task.id, reason)
            portal.end_backup(task.id, reason=reason) if task.kind == "backup" else portal.end_restore(task.id, reason)
    except WorkerFault as error:
        log.warning("%s %s: %s", task.kind, task.id, error)
        return False
    finally:
        engine.close()
        portal.close()
    return True


def back_up(task: VolumeTask, engine: http.client.HTTPConnection, portal: Portal) -> None:
    """Read the volume out in chunks and send those the portal does not have. Raises EngineFault, PortalFault, OSError."""
    engine.request("GET", f"/moorage/volumes/{task.volume}/snapshot?frames=1")
    answer = engine.getresponse()
    if answer.status != 200:
        raise EngineFault(_said(answer))
    whole, digests, size = hashlib.sha256(), bytearray(), 0
    group: dict[bytes, bytes] = {}
    for chunk in frames(answer):
        digest = hashlib.sha256(chunk).digest()
        whole.update(chunk)
        size += len(chunk)
        digests += digest
        group[digest] = chunk
        if len(group) == GROUP:
            _send(task, group, portal)
    _send(task, group, portal)
    digest_of_all = f"sha256:{whole.hexdigest()}"
    portal.end_backup(task.id, digests=bytes(digests), size_bytes=size, digest=digest_of_all)


def frames(stream: Any) -> Iterator[bytes]:
    """Chunks after their lengths; raises EngineFault when the stream ends before its end."""
    while True:
        head = stream.read(4)
        length = int.from_bytes(head)
        if len(head) < 4:
            raise EngineFault("The volume could not be read to its end.", "The engine's log says more.")
        if not length:
            return
        chunk: bytes = stream.read(length)
        if len(chunk) < length:
            raise EngineFault("The volume could not be read to its end.", "The engine's log says more.")
        yield chunk


def _send(task: VolumeTask, group: dict[bytes, bytes], portal: Portal) -> None:
    if group:
        for digest in portal.missing_chunks(task.id, list(group)):
            portal.put_chunk(task.id, digest, zstd.compress(group[digest], LEVEL))
        group.clear()


def restore(task: VolumeTask, engine: http.client.HTTPConnection, portal: Portal) -> None:
    """Hand the backup to the engine, which takes it whole or not at all. Raises EngineFault, PortalFault, OSError."""
    with portal.restore_content(task.id) as content:
        path = f"/moorage/volumes/{task.volume}/content?digest={task.digest}"
        engine.request("PUT", path, body=_plain(content), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = engine.getresponse()
    if answer.status != 200:
        raise EngineFault(_said(answer))
    portal.end_restore(task.id)


def _plain(content: http.client.HTTPResponse) -> Iterator[bytes]:
    """Frame after frame, unpacked; what is cut off ends early, and its digest is not the wanted one."""
    unpacker = zstd.ZstdDecompressor()
    while piece := content.read(PIECE_BYTES):
        while piece:
            if plain := unpacker.decompress(piece):
                yield plain
            piece = unpacker.unused_data if unpacker.eof else b""
            if unpacker.eof:
                unpacker = zstd.ZstdDecompressor()


def _said(answer: http.client.HTTPResponse) -> str:
    body = answer.read(4096)
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"The engine answered {answer.status}."
