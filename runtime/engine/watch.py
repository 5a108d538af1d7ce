"""One inotify instance for the whole engine: log followers sleep on it instead of polling."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.kernel import syscalls

_HEADER = struct.Struct("iIII")  # struct inotify_event, inotify(7)
IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF, IN_IGNORED = 0x2, 0x80, 0x100, 0x400, 0x8000


class Watcher:
    """Folders under watch. An instance a follower would end at fs.inotify.max_user_instances (128)."""

    def __init__(self) -> None:
        self._fd = syscalls.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiting: dict[int, set[asyncio.Event]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop watching; followers are not woken."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    @contextmanager
    def changes(self, folder: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever a file in `folder` grows, appears or is renamed; the caller clears it."""
        wd = syscalls.inotify_add_watch(self._fd, str(folder), IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF)
        event = asyncio.Event()
        self._waiting.setdefault(wd, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting.get(wd)
            if waiting is not None:
                waiting.discard(event)
                if not waiting:
                    del self._waiting[wd]
                    syscalls.inotify_rm_watch(self._fd, wd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            wd, mask, _cookie, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            for event in self._waiting.get(wd, ()):
                event.set()
            if mask & IN_IGNORED:
                self._waiting.pop(wd, None)
