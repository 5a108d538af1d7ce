"""An image made of a container: the layer of what it changed on top of its image, its configuration laid over the image's."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.engine.container import Container
from runtime.engine.core import Core
from runtime.engine.errors import Conflict, Invalid
from runtime.engine.state import State
from runtime.engine.units import rfc3339
from runtime.images import format_building as building
from runtime.images.packing import read_container
from runtime.images.records import ImageRecord
from runtime.images.store import host_architecture
from runtime.storage.driver import DiffPlan

if TYPE_CHECKING:
    from runtime.engine.daemon import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What was asked for. `name` is "" for none; `config` is Docker's container config, laid over the container's own."""

    name: str
    author: str
    comment: str
    pause: bool
    changes: tuple[str, ...]
    config: Any


async def commit(engine: Engine, container: Container, request: Commit) -> ImageRecord:
    """Make the image; with `pause` the container's processes stand still meanwhile. Raises ImageFault, Conflict, Invalid."""
    if not isinstance(request.config, dict):
        raise Invalid("The body is not a JSON object.")
    building.apply_changes({}, request.changes)  # before anything is paused
    core = engine.core
    async with container.lock:
        if container.state is State.REMOVING:
            raise Conflict(f"Container {container.short} is being removed.")
        freeze = request.pause and container.state is State.RUNNING
        if freeze:
            await asyncio.to_thread(core.cgroups.freeze, container.cgroup, frozen=True)
        try:
            plan = await asyncio.to_thread(plan_of, core, container)
            image = await asyncio.to_thread(_make, engine, container, request, plan)
        finally:
            if freeze:
                await asyncio.to_thread(core.cgroups.freeze, container.cgroup, frozen=False)
    core.emit(container, "commit", comment=request.comment, imageID=image.id, imageRef=request.name)
    return image


def plan_of(core: Core, container: Container) -> DiffPlan:
    """Where to read what the container changed; its lock keeps it from starting and stopping meanwhile."""
    chain_ids = container.record.chain_ids or core.images.resolve(container.record.image_id).chain_ids
    return core.driver.diff(container.id, chain_ids)


def _make(engine: Engine, container: Container, request: Commit, plan: DiffPlan) -> ImageRecord:
    record = container.record
    history = {
        "author": request.author,
        "comment": request.comment,
        "created_by": " ".join(record.process.args),
    }

    def config(document: dict[str, Any], diff_id: str) -> bytes:
        run = merged(document.get("config") or {}, container)
        run |= {key: value for key, value in request.config.items() if key in _CONFIG_KEYS and value}
        building.apply_changes(run, request.changes)
        return building.new_config(
            document,
            diff_id,
            run=run,
            architecture=host_architecture(),
            created=rfc3339(time.time_ns()),
            history=history,
        )

    return engine.core.images.add_layer(record.image_id, read_container(plan, "diff"), config, request.name)


_CONFIG_KEYS = frozenset(
    {"Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir"}
)


def merged(image: dict[str, Any], container: Container) -> dict[str, Any]:
    """An image's "config" with what the container was created with; what only this host gave it (HOSTNAME, TERM) is left out."""
    asked, run = container.record.config, dict(image)
    if asked.entrypoint is not None:
        run["Entrypoint"], run["Cmd"] = list(asked.entrypoint), None
    if asked.cmd:
        run["Cmd"] = list(asked.cmd)
    if asked.env:
        found = dict(entry.partition("=")[::2] for entry in [*(image.get("Env") or []), *asked.env] if "=" in entry)
        run["Env"] = [f"{name}={value}" for name, value in found.items()]
    if container.labels:
        run["Labels"] = dict(container.labels)
    if asked.exposed_ports:
        run["ExposedPorts"] = (image.get("ExposedPorts") or {}) | {port: {} for port in asked.exposed_ports}
    for key, value in (("User", asked.user), ("WorkingDir", asked.workdir), ("StopSignal", asked.stop_signal)):
        if value:
            run[key] = value
    return run
