"""Volumes and the containers that have them: made at create, seeded at the first start, kept until somebody removes them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.errors import Forbidden, Invalid
from runtime.engine.filters import Filters
from runtime.engine.mountrequest import VolumeMount, with_anonymous
from runtime.engine.request import HostConfig
from runtime.engine.units import parse_size
from runtime.errors import RuntimeFault
from runtime.storage.volumeplan import VolumePlan, write_plans
from runtime.storage.volumes import Volume, VolumeInUse, Volumes

_KNOWN_OPTIONS = frozenset(("size",))


class EngineVolumes:
    """The engine's side of `Volumes`: who uses what, events, and one at a time where a volume gets its first content."""

    def __init__(self, core: Core, store: Volumes) -> None:
        self._core = core
        self.store = store
        self._locks: dict[str, asyncio.Lock] = {}

    def users(self, name: str) -> list[Container]:
        """Containers, living or not, that have the volume."""
        return [c for c in self._core.registry if any(v.name == name for v in c.record.host.volumes)]

    def lock(self, name: str) -> asyncio.Lock:
        """Held by who mounts, fills, swaps or removes a volume."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def create(
        self, name: str = "", *, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:  # fmt: skip
        """Make a volume, or find the one of that name. Without a name it is anonymous. Raises Invalid, Forbidden, StorageFault."""
        size = size_option(options or {})
        volume, made = await asyncio.to_thread(
            self.store.create, name or secrets.token_hex(32), size_bytes=size, labels=labels, options=options,
            anonymous=anonymous or not name,
        )  # fmt: skip
        if made:
            self._emit(volume.name, "create")
        return volume

    async def resolve(self, host: HostConfig, targets: tuple[str, ...]) -> HostConfig:
        """The volumes a new container gets, made where they are not there; `targets` get anonymous ones."""
        taken = {b.target for b in host.binds} | set(host.tmpfs)
        wanted = with_anonymous(host.volumes, taken, targets)
        made: list[str] = []
        found = []
        try:
            for mount in wanted:
                volume = await self.create(
                    mount.name, labels=mount.labels, options=mount.options, anonymous=mount.anonymous
                )
                if not mount.name:
                    made.append(volume.name)
                found.append(replace(mount, name=volume.name))
        except BaseException:
            for name in made:
                await self._discard(name)
            raise
        return replace(host, volumes=tuple(found))

    async def give_back(self, host: HostConfig) -> None:
        """Take away the anonymous volumes of a container that is gone, or never came to be."""
        for mount in host.volumes:
            if mount.anonymous and not self.users(mount.name):
                async with self.lock(mount.name):
                    await self._discard(mount.name)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume nobody has. Raises NoSuchVolume (not with `force`), VolumeInUse in Docker's words."""
        if force and name not in {v.name for v in self.store.list()}:
            return
        self.store.get(name)
        async with self.lock(name):
            self._refuse_used(name)
            await self._discard(name)

    def _refuse_used(self, name: str) -> None:
        users = self.users(name)
        if users:
            raise VolumeInUse(
                f"remove {name}: volume is in use - [{', '.join(c.id for c in users[:20])}]",
                "Remove the containers first.",
            )

    async def _discard(self, name: str) -> None:
        try:
            await asyncio.to_thread(self.store.remove, name)
        except RuntimeFault:
            if name in {v.name for v in self.store.list()}:
                raise
            return
        self._locks.pop(name, None)
        self._emit(name, "destroy")

    async def prune(self, filters: Filters, *, anonymous_only: bool) -> tuple[list[str], int]:
        """Remove what no container has; names, and bytes that are free again."""
        gone, freed = [], 0
        for volume in self.store.list():
            if anonymous_only and not volume.anonymous:
                continue
            if not filters.labels(volume.labels) or (filters.get("label!") and filters.labels(volume.labels, "label!")):
                continue
            async with self.lock(volume.name):
                if self.users(volume.name):
                    continue
                freed += await asyncio.to_thread(self.store.used_bytes, volume.name)
                await self._discard(volume.name)
            gone.append(volume.name)
        return gone, freed

    @asynccontextmanager
    async def mounted(self, container: Container) -> AsyncIterator[tuple[VolumeMount, ...]]:
        """While a container starts: its plans are on disk, and nobody else starts with one of its volumes.

        Gives the mounts that are to be seeded (`runtime.oci.copyup.seed`, which knows a copy that was cut short).
        """
        mounts = container.record.host.volumes
        if not mounts:
            yield ()
            return
        async with AsyncExitStack() as locks:
            for name in sorted({m.name for m in mounts}):
                await locks.enter_async_context(self.lock(name))
            seeded = tuple(m for m in mounts if m.copy and not m.subpath and not self.store.get(m.name).seeded)
            write_plans(container.folder, await asyncio.to_thread(self._plans, mounts))
            yield seeded
            for mount in seeded:
                await asyncio.to_thread(self.store.set_seeded, mount.name)

    def _plans(self, mounts: tuple[VolumeMount, ...]) -> list[VolumePlan]:
        return [
            self.store.plan(m.name, m.target, subpath=m.subpath, make_subpath=m.make_subpath) for m in mounts
        ]  # fmt: skip

    def _emit(self, name: str, action: str) -> None:
        self._core.events.emit("volume", action, name, {"driver": "local"})


def size_option(options: Mapping[str, str]) -> int:
    """Bytes of `DriverOpts.size`, 0 without. Raises Invalid; Forbidden for options that would mount something of the host's."""
    for key in options:
        if key not in _KNOWN_OPTIONS:
            raise Forbidden(
                f"The volume option {key[:64]!r} is refused.",
                "A volume has a size, nothing else; for memory use --mount type=tmpfs.",
            )
    text = options.get("size", "")
    if not text:
        return 0
    size = parse_size(text, "DriverOpts.size")
    if not size:
        raise Invalid("DriverOpts.size is 0.", "Leave it out for a volume without a limit.")
    return size
