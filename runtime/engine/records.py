"""What the engine remembers of a container between its own lives: `record.json`, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from runtime.engine.healthcheck import Check
from runtime.engine.request import ContainerConfig, EndpointConfig, HostConfig, PortBinding
from runtime.engine.state import State
from runtime.kernel.process import write_atomic

RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What runs, after the image's configuration and the request were laid over each other."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    stop_signal: str
    labels: dict[str, str]
    exposed_ports: tuple[str, ...]
    health: Check | None = None
    shell: tuple[str, ...] = ()  # the image's
    volumes: tuple[str, ...] = ()  # the image's VOLUMEs


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a container was last reached: its address, and its published ports as they really were."""

    address: str = ""
    ports: tuple[PortBinding, ...] = ()


@dataclass(slots=True, kw_only=True)
class Life:
    """How the container is and was: the part of a record that changes. Times in nanoseconds since 1970, 0 is never.

    `failures` counts the short runs in a row, `due_ns` is when the next start by the restart policy is to be."""

    state: State = State.CREATED
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    sentence: str = ""
    restarts: int = 0
    failures: int = 0
    due_ns: int = 0
    stopped_by_user: bool = False
    health: str = ""
    removes_volumes: bool = False  # its anonymous ones, once it is gone
    seat: Seat = field(default_factory=Seat)


@dataclass(slots=True, kw_only=True)
class Record:
    """One container on disk. `id` is 64 hex digits, `id_base` the first of its 65,536 host ids."""

    id: str
    name: str
    created_ns: int
    image_id: str
    chain_ids: tuple[str, ...] = ()  # of the image's layers, lowest first; empty in records of earlier engines
    id_base: int
    config: ContainerConfig
    host: HostConfig
    endpoint: EndpointConfig
    process: Process
    life: Life = field(default_factory=Life)
    boot_id: str = ""


def save(folder: Path, record: Record) -> None:
    """Write `record.json` in `folder`: temporary file, fsync, rename, fsync of the folder."""
    write_atomic(folder / RECORD, json.dumps(dataclasses.asdict(record), separators=(",", ":")).encode(), durable=True)


def load(folder: Path) -> Record:
    """Read `folder`'s record; raises FileNotFoundError, or ValueError when it is not a record."""
    try:
        found: Record = decode(Record, json.loads((folder / RECORD).read_bytes()))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / RECORD}: {error}") from error
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def decode(kind: Any, value: Any) -> Any:
    """Rebuild dataclasses, tuples and enums of `kind` from JSON; unknown keys are dropped, so older engines read newer files."""
    if value is None:
        return None
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return decode(next(a for a in typing.get_args(kind) if a is not type(None)), value)
    if origin is tuple:
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(decode(args[0], item) for item in value)
        return tuple(decode(a, item) for a, item in zip(args, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, State):
        return State(value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{k: decode(hints[k], v) for k, v in value.items() if k in hints})
    return value
