"""Reading volumes out while containers use them, and putting content back: by children that the engine starts and outlives."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.engine.container import Container
from runtime.engine.core import Core, log
from runtime.engine.errors import Conflict, EngineFault, Invalid
from runtime.engine.state import State
from runtime.engine.volumes import EngineVolumes
from runtime.storage import ext4
from runtime.storage.volumeplan import DATA, IMAGE

_ROOT = Path(__file__).resolve().parent.parent.parent
_FRAME = struct.Struct(">I")
HELD = "held.json"  # in .drafts' parent: the volume whose users stand still, for the next engine


class Snapshots:
    """One at a time for each volume."""

    def __init__(self, core: Core, volumes: EngineVolumes) -> None:
        self._core = core
        self._volumes = volumes
        self._store = volumes.store
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[Path]:
        """A copy of the volume at one moment, in a folder of its own that goes afterwards. Raises NoSuchVolume, EngineFault."""
        volume = self._store.get(name)
        draft = await asyncio.to_thread(self._store.draft, name)
        try:
            await asyncio.to_thread(self._check_room, name)
            async with self._turn, self._volumes.lock(name):
                await self._copy(name, draft, sized=bool(volume.size_bytes))
            yield draft
        finally:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    def _check_room(self, name: str) -> None:
        used, place = self._store.used_bytes(name), os.statvfs(self._store.root)
        free = place.f_bavail * place.f_frsize
        if used > free * 0.9:
            raise EngineFault(
                f"A copy of {name} takes {used} bytes, the host has {free} left.", "Free some, or move what is there."
            )

    async def _copy(self, name: str, draft: Path, *, sized: bool) -> None:
        """Writers stand still meanwhile: the file system is frozen, or their groups are where it has none of its own."""
        (draft / DATA).mkdir(exist_ok=True)
        users = [] if sized else [c for c in self._volumes.users(name) if c.state is State.RUNNING]
        self._write_held(name, users)
        try:
            if sized:
                options = {"do": "copy", "target": str(draft / IMAGE)} | self._options(name)
                await self._child(options)
            else:
                await self._copy_folder(name, draft, users)
        finally:
            await self._release(name, [c.cgroup for c in users])

    async def _copy_folder(self, name: str, draft: Path, users: list[Container]) -> None:
        for container in users:
            await asyncio.to_thread(self._core.cgroups.freeze, container.cgroup, frozen=True)
        command = ["cp", "-a", "--reflink=auto", f"{self._store.folder(name) / DATA}/.", str(draft / DATA)]
        child = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await child.communicate()
        if child.returncode:
            raise EngineFault(f"{name} could not be copied: {said.decode(errors='replace').strip()[-300:]}")

    def _write_held(self, name: str, users: list[Container]) -> None:
        held = {"volume": name, "groups": [c.cgroup for c in users]}
        (self._store.root / f".{HELD}").write_text(json.dumps(held))

    async def _release(self, name: str, groups: list[str]) -> None:
        """Whatever came of the copy, nobody stands still any longer."""
        for group in groups:
            with suppress(OSError):
                await asyncio.to_thread(self._core.cgroups.freeze, group, frozen=False)
        if self._store.get(name).size_bytes:
            await self._child({"do": "thaw"} | self._options(name))
        (self._store.root / f".{HELD}").unlink(missing_ok=True)

    async def recover(self) -> None:
        """At the engine's start: let go on what the last one held when it was killed."""
        try:
            held = json.loads((self._store.root / f".{HELD}").read_bytes())
        except (FileNotFoundError, ValueError):
            return
        with suppress(EngineFault):
            log.warning("volume %s was being copied when the last engine ended", held["volume"])
            await self._release(held["volume"], held["groups"])

    def _options(self, name: str, folder: Path | None = None) -> dict[str, Any]:
        volume = self._store.get(name)
        sized = bool(volume.size_bytes)
        clusters = ext4.reserved_clusters(volume.free_blocks, volume.size_bytes) if sized else 0
        return {"folder": str(folder or self._store.folder(name)), "sized": sized, "clusters": clusters}

    async def _child(self, options: dict[str, Any]) -> bytes:
        child = await self._start(options, stdin=asyncio.subprocess.DEVNULL)
        out, said = await child.communicate()
        return self._ended(child, out, said)

    @staticmethod
    async def _start(options: dict[str, Any], *, stdin: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runtime.storage.volumecopy", json.dumps(options), cwd=_ROOT, stdin=stdin,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 21,
        )  # fmt: skip

    @staticmethod
    def _ended(child: asyncio.subprocess.Process, out: bytes, said: bytes) -> bytes:
        if child.returncode:
            words = said.decode(errors="replace").strip().splitlines() or [f"it ended with {child.returncode}"]
            raise Invalid(f"The volume could not be copied: {words[-1][:500]}")
        return out

    async def frames(self, name: str, copy: Path) -> AsyncGenerator[bytes]:
        """The chunks of a copy. Raises EngineFault when not all of them came."""
        child = await self._start({"do": "read"} | self._options(name, copy), stdin=asyncio.subprocess.DEVNULL)
        assert child.stdout is not None and child.stderr is not None
        try:
            with suppress(asyncio.IncompleteReadError):
                while length := _FRAME.unpack(await child.stdout.readexactly(_FRAME.size))[0]:
                    yield await child.stdout.readexactly(length)
                return
            said = await child.stderr.read()
            await child.wait()
            raise EngineFault(
                f"{name} could not be read: {said.decode(errors='replace').strip()[-300:] or 'its reader ended'}"
            )
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    async def restore(self, name: str, digest: str, content: AsyncIterator[bytes]) -> dict[str, Any]:
        """Put a tar in the place of all that is in a volume, once it is unpacked whole and has this digest; until then, and when
        anything fails, the old content stays. Raises Conflict while a container runs with the volume."""
        async with self._volumes.lock(name):
            self._refuse_live(name)
            draft = await asyncio.to_thread(self._store.fresh, name)
            try:
                told: dict[str, Any] = json.loads(await self._filled(name, draft, content))
                if told["digest"] != digest:
                    raise Invalid(f"The content is {told['digest']}, not {digest[:80]}: it is damaged; the old stays.")
                self._refuse_live(name)
                await asyncio.to_thread(self._store.swap, name, draft)
            finally:
                await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        return told

    async def _filled(self, name: str, draft: Path, content: AsyncIterator[bytes]) -> bytes:
        child = await self._start({"do": "fill"} | self._options(name, draft), stdin=asyncio.subprocess.PIPE)
        assert child.stdin is not None
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it says why
                async for piece in content:
                    child.stdin.write(piece)
                    await child.stdin.drain()
            out, said = await child.communicate()
            return self._ended(child, out, said)
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    def _refuse_live(self, name: str) -> None:
        users = [c for c in self._volumes.users(name) if c.state.is_live]
        if users:
            raise Conflict(
                f"{name} is in use by {', '.join(c.name for c in users[:5])}.", "Stop what uses it, then restore again."
            )
