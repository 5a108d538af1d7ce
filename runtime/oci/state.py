"""What a container's folder says about its life: `state.json` while it lives, `exit.json` after.

Written by the monitor, read by the engine, also by one that was started later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Self

from runtime.dataclass import dataclass
from runtime.kernel.process import ProcessRef, read_small, write_atomic

STATE = "state.json"
STARTED = "started"  # when execve succeeded, ns since 1970; a file of its own, the monitor writes it without JSON
EXIT = "exit.json"
CONFIG = "config.json"
ROOT = "root.json"
LOG_FOLDER = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A container that was made. `cgroup` is relative to the hierarchy's root, `loop` the upper's device or "".

    `monitor` is None for one that was made by the command line; its `bundle` is where its configuration came from.
    """

    id: str
    monitor: ProcessRef | None
    init: ProcessRef
    cgroup: str
    bundle: str = ""
    attach: str = ""
    loop: str = ""
    created_ns: int = 0
    started_ns: int = 0

    def write(self, bundle: Path) -> None:
        """Replace `state.json`; an earlier start's time goes."""
        (bundle / STARTED).unlink(missing_ok=True)
        write_atomic(bundle / STATE, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, bundle: Path) -> Self | None:
        """The state, None when there is none or it is torn."""
        data = _read(bundle / STATE)
        if data is None:
            return None
        try:
            data["started_ns"] = int(read_small(str(bundle / STARTED)))
        except (FileNotFoundError, ValueError):
            data["started_ns"] = 0
        try:
            monitor, init = data.pop("monitor"), ProcessRef(**data.pop("init"))
            return cls(monitor=ProcessRef(**monitor) if monitor else None, init=init, **data)
        except (TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a container or exec ended. `code` is 128 + signal after a signal, -1 when nobody saw it (`unknown`)."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    oom_kills: int = 0
    unknown: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    memory_limit_bytes: int = 0
    reason: str = ""
    usage: dict[str, int] = field(default_factory=dict)

    def write(self, bundle: Path, name: str = EXIT) -> None:
        """Write the record durably: temporary file, fsync, rename, fsync of the folder."""
        write_atomic(bundle / name, json.dumps(asdict(self)).encode(), durable=True)

    @classmethod
    def read(cls, bundle: Path, name: str = EXIT) -> Self | None:
        """The record, None when there is none."""
        data = _read(bundle / name)
        try:
            return None if data is None else cls(**data)
        except TypeError:
            return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None
