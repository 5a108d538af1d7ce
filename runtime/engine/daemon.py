"""The daemon: puts the parts together, finds what the last one left, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path

from runtime.engine import orphans
from runtime.engine.alarms import Alarms
from runtime.engine.api.server import Api
from runtime.engine.bundle import StoreDevice
from runtime.engine.config import VERSION, EngineConfig
from runtime.engine.container import Container
from runtime.engine.containers import Containers
from runtime.engine.core import Core, log
from runtime.engine.errors import Conflict, EngineFault
from runtime.engine.exec import Execs
from runtime.engine.idranges import IdRanges
from runtime.engine.leftovers import Found, find
from runtime.engine.lifecycle import Lifecycle
from runtime.engine.limits import Limits
from runtime.engine.probing import Probing
from runtime.engine.snapshots import Snapshots
from runtime.engine.stats import Stats
from runtime.engine.supervise import Supervisor
from runtime.engine.volumes import EngineVolumes
from runtime.engine.watch import Watcher
from runtime.errors import RuntimeFault
from runtime.images.store import ImageStore
from runtime.kernel import cgroups
from runtime.kernel.process import boot_id
from runtime.network.bridge import Networks
from runtime.oci.client import LauncherClient
from runtime.storage.choose import choose
from runtime.storage.volumes import Volumes

BACKLOG = 512
AT_ONCE = 8


class Engine:
    """One engine of one state directory."""

    def __init__(self, core: Core, volumes: Volumes) -> None:
        self.core = core
        self.volumes = EngineVolumes(core, volumes)
        self.snapshots = Snapshots(core, self.volumes)
        self.lifecycle = Lifecycle(core, self.volumes)
        self.limits = Limits(core)
        self.containers = Containers(core, self.lifecycle, self.limits, self.volumes)
        self.execs = Execs(core)
        self.supervisor = Supervisor(core, self.lifecycle, self.containers, Probing(core, self.execs))
        self.stats = Stats(core, self.limits)
        self.alarms = Alarms(core, self.stats, self.limits)
        self._over = asyncio.Event()
        self._removed = False

    @classmethod
    async def open(cls, config: EngineConfig) -> Engine:
        """Open every part; raises RuntimeFault with a sentence when one cannot work here."""
        for folder in (
            config.home,
            config.containers,
            config.volumes,
            config.home / "exec",
            config.run,
            config.run / "attach",
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = config.home / "store"
        choice = await asyncio.to_thread(choose, store, wanted=config.storage_driver, max_disk_bytes=config.max_disk)
        log.info("storage driver %s", choice.reason)
        images = await asyncio.to_thread(
            ImageStore, config.home / "images", choice.driver, registries=config.registries
        )
        launcher = LauncherClient(log_file=config.home / "launcher.log", mark=orphans.mark(config.short))
        await launcher.start()
        groups = cgroups.detect()
        core = Core(
            config=config,
            boot_id=boot_id(),
            driver=choice.driver,
            storage=choice,
            images=images,
            networks=await Networks.open(config.state, config.run, config.subnet_pool),
            launcher=launcher,
            cgroups=groups,
            offers=groups.offers(f"moorage-{config.short}"),
            device=StoreDevice.of(store),
            watcher=Watcher(),
            ids=IdRanges(config.short),
        )
        volumes = await asyncio.to_thread(Volumes, config.volumes, max_size_bytes=config.max_disk)
        engine = cls(core, volumes)
        engine.limits.load()
        await engine.limits.restore()
        await engine.snapshots.recover()
        await engine.supervisor.adopt_all()
        engine.execs.adopt()
        engine.alarms.open()
        engine.lifecycle.parking.fill()
        return engine

    def stop(self) -> None:
        """End the daemon; containers live on."""
        self._over.set()

    async def serve(self) -> None:
        """Answer on the socket until `stop`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        api = Api(self)
        path = self.core.config.socket
        server = await loop.create_unix_server(api.server, sock=bind(path), backlog=BACKLOG)
        gc.collect()
        gc.freeze()
        log.info("engine %s ready on %s, %d containers", VERSION, path, len(self.core.registry))
        keeping = asyncio.create_task(self.core.launcher.keep())
        try:
            await self._over.wait()
        finally:
            keeping.cancel()
            server.close()
            self.core.events.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(api.server.shutdown(timeout=1), 3)
            path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Let go of everything; what runs goes on without us."""
        core = self.core
        self.alarms.close()
        await core.settle()
        for container in core.registry:
            if container.launched:
                container.launched.close()
        await core.launcher.close()
        if not self._removed:
            await self.lifecycle.parking.close()
            await core.networks.close()
        core.watcher.close()
        if self._removed and not len(core.registry):
            await asyncio.to_thread(leave, core.config.run)

    async def remove_everything(self) -> Found:
        """Stop and remove every container, then take networks and cgroups out of the kernel; answers what is left."""
        core = self.core
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._remove(c, gate) for c in core.registry))
        await self.lifecycle.parking.close()
        await core.networks.destroy()
        self._removed = True
        await asyncio.to_thread(core.cgroups.remove, core.cgroup_root)
        return await self.leftovers()

    async def _remove(self, container: Container, gate: asyncio.Semaphore) -> None:
        async with gate:
            with suppress(RuntimeFault):
                await self.lifecycle.stop(container)
            try:
                await self.containers.remove(container, force=True)
            except RuntimeFault as fault:
                log.warning("container %s could not be removed: %s", container.short, fault)

    async def leftovers(self) -> Found:
        """What of this state belongs to no container."""
        return await asyncio.to_thread(find, self.core.config, self.core.cgroups)


def leave(run: Path) -> None:
    """Remove what an engine keeps in its run directory, when nothing lives; what others keep there stays."""
    for name in ("attach", "netns", "sandboxes"):
        shutil.rmtree(run / name, ignore_errors=True)
    with suppress(OSError):
        run.rmdir()


def lock(config: EngineConfig) -> int:
    """Hold the state directory for one engine; raises Conflict when another has it. The lock ends with the process."""
    config.home.mkdir(parents=True, exist_ok=True, mode=0o755)
    fd = os.open(config.home / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise Conflict(
            f"Another engine (pid {pid or 'unknown'}) has {config.state}.", "Stop it first, or choose another --state."
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def bind(path: Path) -> socket.socket:
    """The listening socket, mode 0660; a file that an earlier engine left is replaced (we hold the lock)."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise EngineFault(f"The socket {path} cannot be made: {error.strerror}.") from error
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


async def run(config: EngineConfig) -> None:
    """The daemon's whole life."""
    engine = await Engine.open(config)
    try:
        await engine.serve()
    finally:
        await engine.close()
