"""Limits of living containers and of groups: changed without a restart, kept on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from runtime.engine.bundle import group_limits
from runtime.engine.container import Container
from runtime.engine.core import Core, log
from runtime.engine.errors import Conflict, Invalid
from runtime.engine.fields import Fields
from runtime.engine.lifecycle import log_options
from runtime.engine.records import decode
from runtime.engine.request import check_group, parse_restart
from runtime.engine.resources import Resources, checked, parse_resources
from runtime.engine.state import State
from runtime.engine.units import parse_size
from runtime.errors import RuntimeFault
from runtime.kernel.cgroups import Resources as GroupLimits
from runtime.kernel.process import write_atomic

GROUPS = "groups.json"
MAX_GROUPS = 20_000
CPU_WEIGHT = 25  # of all containers together, beside 100 of whatever else wants a CPU at the same time: ingress and portal go first


class Limits:
    """Applies limits. What a group may have is written down first, so that it holds again after a reboot."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._groups: dict[str, Resources] = {}

    @property
    def _file(self) -> Path:
        return self._core.config.home / GROUPS

    # one container

    async def update(self, container: Container, body: object) -> list[str]:
        """Change what `body` names; the rest stays. Returns warnings. Raises a RuntimeFault with nothing changed."""
        fields = Fields(body, "body")
        async with container.lock:
            if container.state in (State.REMOVING, State.DEAD):
                raise Conflict(f"Container {container.id} is {container.state}.")
            old = container.record.host
            new = parse_resources(fields.data, old.resources)
            storage = fields.object("StorageOpt")
            if "size" in storage:
                new = replace(new, disk_size=parse_size(storage.text("size"), "StorageOpt.size"))
            new = checked(_with_swap(new, old.resources, fields))
            self._check_disk(new)
            policy = parse_restart(fields.object("RestartPolicy")) if "RestartPolicy" in fields else old.restart
            if policy.name != "no" and old.auto_remove:
                raise Invalid("Restart policy cannot be updated because AutoRemove is enabled for the container.")
            async with AsyncExitStack() as undo:
                warnings = await self._apply(container, old.resources, new, undo)
                undo.callback(setattr, container.record, "host", old)
                container.record.host = replace(old, resources=new, restart=policy)
                await asyncio.to_thread(self._core.save, container)
                undo.pop_all()
        self._core.emit(container, "update")
        return warnings

    def _check_disk(self, new: Resources) -> None:
        largest = self._core.config.max_disk
        if new.disk_size > largest:
            raise Invalid(
                f"A disk of {new.disk_size} bytes is above the largest here, {largest}.",
                "Start the engine with a larger --max-disk.",
            )

    async def _apply(self, container: Container, old: Resources, new: Resources, undo: AsyncExitStack) -> list[str]:
        """Change what differs, first what may be refused; `undo` puts back what was changed."""
        warnings = []
        if container.state.is_live:
            await self._set_kernel(container, old, new, undo)
        if new.disk_size != old.disk_size and container.life.started_ns:
            live = await self._set_disk(container, old.disk_size, new.disk_size, undo)
            if not live and container.state.is_live:
                warnings.append(
                    "The new disk size holds from the container's next start on: it was started without a limit."
                )
        if container.state.is_live:
            await self._set_network(container, old, new, undo)
            await self._set_log(container, old, new, undo)
        return warnings

    async def _set_kernel(self, container: Container, old: Resources, new: Resources, undo: AsyncExitStack) -> None:
        core, loop = self._core, loop_of(container)
        before, after = group_limits(old, core.device, loop), group_limits(new, core.device, loop)
        if before == after:
            return
        undo.push_async_callback(put_back, lambda: asyncio.to_thread(core.cgroups.set_limits, container.cgroup, before))
        with refusals(container.short):
            await asyncio.to_thread(core.cgroups.set_limits, container.cgroup, after)

    async def _set_disk(self, container: Container, old: int, new: int, undo: AsyncExitStack) -> bool:
        set_quota = self._core.driver.set_quota
        live = await asyncio.to_thread(set_quota, container.id, new)
        undo.push_async_callback(put_back, lambda: asyncio.to_thread(set_quota, container.id, old))
        return live

    async def _set_network(self, container: Container, old: Resources, new: Resources, undo: AsyncExitStack) -> None:
        if (new.rate_in, new.rate_out) == (old.rate_in, old.rate_out):
            return
        set_rates = self._core.networks.set_rates
        for endpoint in self._core.networks.endpoints(container.id):
            former = partial(set_rates, endpoint, rate_in_bps=old.rate_in, rate_out_bps=old.rate_out)
            undo.push_async_callback(put_back, former)
            await set_rates(endpoint, rate_in_bps=new.rate_in, rate_out_bps=new.rate_out)

    async def _set_log(self, container: Container, old: Resources, new: Resources, undo: AsyncExitStack) -> None:
        if (new.log_rate, new.log_size) == (old.log_rate, old.log_size) or not container.launched:
            return
        options, set_log = log_options(container), container.launched.set_log
        undo.push_async_callback(put_back, partial(set_log, options))
        await set_log(replace(options, rate_bps=new.log_rate, total_bytes=new.log_size))

    # teams and apps

    def load(self) -> None:
        """Read the groups' limits from disk; a file that is not readable is left alone and said."""
        try:
            data = json.loads(self._file.read_bytes())
            self._groups = {check_group(path): decode(Resources, limits) for path, limits in data.items()}
        except FileNotFoundError:
            return
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("%s is not readable, groups have no limits until they are set again: %s", self._file, error)

    async def restore(self) -> None:
        """Make the group of all containers, and those that have limits, after a reboot or at every start."""
        core = self._core
        await asyncio.to_thread(core.cgroups.create, core.cgroup_root, GroupLimits(cpu_weight=CPU_WEIGHT))
        for path, resources in self._groups.items():
            await asyncio.to_thread(self._make, path, resources)

    def _make(self, path: str, resources: Resources) -> None:
        core = self._core
        core.cgroups.create(f"{core.cgroup_root}/{path}", group_limits(resources, core.device))

    def _change(self, path: str, resources: Resources) -> None:
        """Make a group with limits; when they are refused it has those it had, and is gone when it was not there."""
        core = self._core
        group, before = f"{core.cgroup_root}/{path}", self.group(path)
        known = group in core.cgroups.list(core.cgroup_root)
        try:
            with refusals(path):
                self._make(path, resources)
        except RuntimeFault:
            with suppress(OSError, RuntimeFault):
                self._make(path, before) if known else core.cgroups.remove(group)
            raise

    async def set_group(self, body: object) -> None:
        """Limits of `<team>` or `<team>/<app>`, as Docker names them. Raises Invalid, Conflict, CgroupFault."""
        fields = Fields(body, "body")
        path = check_group((fields.text("path", limit=512) or fields.text("Path", limit=512)).strip("/"))
        if not path:
            raise Invalid("path is missing.", "Give <team> or <team>/<app>.")
        if path not in self._groups and len(self._groups) >= MAX_GROUPS:
            raise Conflict(f"{MAX_GROUPS} groups have limits on this engine.")
        resources = parse_resources(fields.data)
        await asyncio.to_thread(self._change, path, resources)
        self._groups[path] = resources
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        data = {path: dataclasses.asdict(r) for path, r in self._groups.items()}
        write_atomic(self._file, json.dumps(data).encode(), durable=True)

    def has(self, path: str) -> bool:
        """Whether a group, or one below it, has limits of its own."""
        return any(known == path or known.startswith(f"{path}/") for known in self._groups)

    def group(self, path: str) -> Resources:
        """What a group may have."""
        return self._groups.get(path, Resources())


async def put_back(work: Callable[[], Awaitable[object]]) -> None:
    """Undo one step; a failure is logged, for the one that led here is what is answered."""
    try:
        await work()
    except (RuntimeFault, OSError) as error:
        log.warning("a limit could not be put back after a refused update: %s", error)


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """What the kernel refuses, as a Conflict that names the file."""
    try:
        yield
    except OSError as error:
        raise Conflict(
            f"The kernel refused {Path(str(error.filename)).name} of {name}: {error.strerror}.",
            "Nothing was changed; ask for what this host has, and for a group no less than what lies below it.",
        ) from error


def _with_swap(new: Resources, old: Resources, fields: Fields) -> Resources:
    """A new memory limit without a word on swap keeps the swap that was beside the old one."""
    if "Memory" not in fields or "MemorySwap" in fields or old.memory_swap <= 0:
        return new
    beside = old.memory_swap - old.memory
    return replace(new, memory_swap=new.memory + beside if new.memory else 0)


def loop_of(container: Container) -> tuple[int, int] | None:
    """Major and minor of the loop device below a running container's writable layer."""
    name = container.launched.loop if container.launched else ""
    number = name.removeprefix("loop")
    return (7, int(number)) if number.isdigit() else None
