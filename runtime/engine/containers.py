"""Containers come and go: create, rename, remove. What happens between is in lifecycle.py and supervise.py."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from dataclasses import replace
from pathlib import Path

from runtime.engine import tini
from runtime.engine.bundle import hostname
from runtime.engine.container import Container, Ended
from runtime.engine.core import Core, log
from runtime.engine.errors import Conflict, Forbidden, Invalid
from runtime.engine.lifecycle import Lifecycle, signal_number
from runtime.engine.limits import Limits
from runtime.engine.mountrequest import Bind
from runtime.engine.process import merge
from runtime.engine.records import Record, save
from runtime.engine.request import CreateRequest, HostConfig, check_name
from runtime.engine.state import State
from runtime.engine.volumes import EngineVolumes
from runtime.network.model import NoSuchNetwork
from runtime.storage.volumeplan import DATA
from runtime.storage.volumes import RECORD

GONE = ".removed"
MAX_CONTAINERS = 10_000
ADJECTIVES = (
    *("amber", "brisk", "calm", "clear", "deep", "dry", "early", "fair", "firm", "fresh", "gentle", "glad"),
    *("grand", "keen", "light", "mild", "plain", "quick", "quiet", "safe", "sharp", "still", "swift", "warm"),
)
NOUNS = (
    *("anchor", "bay", "beacon", "berth", "bollard", "buoy", "canal", "cleat", "cove", "current", "delta"),
    *("dock", "ferry", "fjord", "harbor", "helm", "jetty", "keel", "lagoon", "mast", "pier", "quay", "reef"),
)


class Containers:
    """Making and removing records."""

    def __init__(self, core: Core, lifecycle: Lifecycle, limits: Limits, volumes: EngineVolumes) -> None:
        self._core = core
        self._lifecycle = lifecycle
        self._limits = limits
        self.volumes = volumes

    async def create(self, request: CreateRequest, name: str = "") -> Container:
        """Write the record of a new container; no process, namespace or mount is made. Raises NoSuchImage, Conflict, Invalid."""
        core = self._core
        if name:
            name = check_name(name)
            core.registry.check_free(name)
        if len(core.registry) >= MAX_CONTAINERS:
            raise Conflict(f"There are {MAX_CONTAINERS} containers on this engine.", "Remove some.")
        if request.config.stop_signal:
            signal_number(request.config.stop_signal)
        host = self._checked(request.host)
        image = await asyncio.to_thread(core.images.resolve, request.config.image)
        identity = secrets.token_hex(32)
        host = await self.volumes.resolve(host, anonymous_targets(request, image.config.volumes))
        record = Record(
            id=identity,
            name=name or self._free_name(identity),
            created_ns=time.time_ns(),
            image_id=image.id,
            chain_ids=tuple(image.chain_ids),
            id_base=core.ids.take(),
            config=request.config,
            host=host,
            endpoint=request.endpoint,
            process=merge(request.config, image.config, request.config.hostname or identity[:12]),
            boot_id=core.boot_id,
        )
        container = Container(record, core.config.containers / identity)
        try:
            core.registry.add(container)
            container.folder.mkdir(mode=0o700)
            await asyncio.to_thread(save, container.folder, record)
        except BaseException:
            core.registry.discard(container)
            core.ids.give_back(record.id_base)
            shutil.rmtree(container.folder, ignore_errors=True)
            await self.volumes.give_back(record.host)
            raise
        core.emit(container, "create")
        return container

    def _checked(self, host: HostConfig) -> HostConfig:
        """With binds as they are mounted. Raises what only this engine's state can refuse: network, bind, size above the largest."""
        core = self._core
        if host.network_mode not in ("default", "none", "host") and not host.network_mode.startswith("container:"):
            try:
                core.networks.get(host.network_mode)
            except NoSuchNetwork as error:  # not 404: clients take that for a missing image and pull it
                raise Invalid(f"network {host.network_mode} not found.", "Create it first.") from error
        if host.init:
            tini.provided(core.config.home)
        if host.resources.disk_size > core.config.max_disk:
            raise Invalid(
                f"StorageOpt.size is {host.resources.disk_size} bytes; the largest here is {core.config.max_disk}.",
                "Ask for less, or start the engine with a larger --max-disk.",
            )
        if core.config.trusted:
            return host
        return replace(host, binds=tuple(self._confined(bind) for bind in host.binds))

    def _confined(self, bind: Bind) -> Bind:
        """A tenant writes what lies in a volume, so a link there is followed now or never: at the start it may lead elsewhere."""
        root = self._core.config.volumes.resolve()
        source = Path(bind.source).resolve()
        if not Path(bind.source).is_absolute() or not source.is_relative_to(root) or source == root:
            raise Forbidden(
                f"The bind mount of {bind.source[:200]!r} is refused: only folders below {root} may be mounted.",
                "Only an engine started with --trusted grants others.",
            )
        managed = root / source.relative_to(root).parts[0]
        if (managed / RECORD).exists() and not source.is_relative_to(managed / DATA):
            raise Forbidden(f"The bind mount of {bind.source[:200]!r} is refused.", f"Mount the volume {managed.name}.")
        if not source.is_dir():
            raise Invalid(f"invalid mount config: bind source path does not exist: {bind.source[:200]}.")
        return replace(bind, source=str(source), confined=True)

    def _free_name(self, identity: str) -> str:
        number = int(identity[:8], 16)
        base = f"{ADJECTIVES[number % len(ADJECTIVES)]}_{NOUNS[number // 64 % len(NOUNS)]}"
        taken = {c.name for c in self._core.registry}
        return base if base not in taken else f"{base}_{identity[:6]}"

    def rename(self, container: Container, name: str) -> None:
        """Give another name, on disk too. Raises Conflict, Invalid."""
        old = container.name
        name = check_name(name)
        if name == old:
            raise Invalid("Renaming a container with the same name as its current name.")
        self._core.registry.rename(container, name)
        self._core.save(container)
        self._core.emit(container, "rename", oldName=f"/{old}")

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Take a container away with all it has; with `force` it is killed first, with `volumes` its anonymous ones go too.

        Raises Conflict while it lives."""
        if container.state is State.REMOVING:
            raise Conflict(f"removal of container {container.short} is already in progress.")
        if not container.state.can_delete and not force:
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {container.state}: stop the container before removing or force remove.',
            )
        while True:
            await self._lifecycle.end(container)
            async with container.lock:
                if container.state.is_live:
                    continue  # a start that had the lock before us has made it run
                if container in self._core.registry:  # --rm may have been faster
                    await self.discard(container, volumes=volumes)
                return

    async def discard(self, container: Container, *, volumes: bool = False) -> None:
        """The removal itself, for one that holds the lock and knows that nothing of the container lives. Safe to repeat."""
        core = self._core
        volumes = volumes or container.record.host.auto_remove
        if volumes and any(v.anonymous for v in container.record.host.volumes):
            container.life.removes_volumes = True  # on disk, for who finishes what is begun here
            await asyncio.to_thread(core.save, container)
        container.life.state = State.REMOVING
        gone = container.folder.with_name(container.id + GONE)
        with container.writing:
            if container.folder.exists():
                container.folder.rename(gone)  # from here on a restart finishes what is begun here
        await self._lifecycle.joining.leave(container)
        await asyncio.to_thread(remove_remains, core, container.id, gone)
        core.ids.give_back(container.record.id_base)
        core.registry.discard(container)
        if container.life.removes_volumes:
            await self.volumes.give_back(container.record.host)
        core.emit(container, "destroy")
        for signal in (container.exits, container.removals):  # who waits for a next exit would wait for ever
            signal.fire(Ended(container.life.exit_code))
        await self._leave_groups(container.record.host.cgroup_parent)

    async def _leave_groups(self, parent: str) -> None:
        """Remove the app's and the team's groups when nothing else lies in them and nobody gave them limits."""
        while parent:
            below = f"{parent}/"
            if self._limits.has(parent) or any(
                f"{c.record.host.cgroup_parent}/".startswith(below) for c in self._core.registry
            ):
                return
            await asyncio.to_thread(self._core.cgroups.remove, f"{self._core.cgroup_root}/{parent}")
            parent = parent.rpartition("/")[0]


def anonymous_targets(request: CreateRequest, image: tuple[str, ...]) -> tuple[str, ...]:
    """Where a new container gets volumes of its own: as asked, and where its image says so.

    The image's stay in the writable layer when that has a size: they would be as much again that no limit counts.
    """
    return (*request.config.volumes, *(() if request.host.resources.disk_size else image))


def remove_remains(core: Core, identity: str, folder: Path) -> None:
    """The writable layer, the attach socket and the folder of a container that no longer counts; blocks, for a thread."""
    core.driver.remove(identity)
    attach_path(core, identity).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("%s could not be removed", folder)


def attach_path(core: Core, identity: str) -> Path:
    """Where the monitor of a container listens for attach clients."""
    return core.config.run / "attach" / f"{identity[:12]}.sock"


def is_id(name: str) -> bool:
    """Whether a folder's name is a container's id."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


__all__ = ["GONE", "Containers", "attach_path", "hostname", "is_id", "remove_remains"]
