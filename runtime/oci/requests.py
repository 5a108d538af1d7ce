"""What a monitor is asked for. Sent to the launcher as JSON."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How a container's output is kept; 0 is no limit.

    Above `rate_bps` (bytes per second) writers wait. A file is closed at `file_bytes`; the oldest closed files go when all
    together pass `total_bytes`.
    """

    rate_bps: int = 0
    total_bytes: int = 0
    file_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """A container to make from its folder.

    `bundle` holds `config.json`, and by the time it is said to be complete `root.json` and what is bound from it; `log/`,
    `state.json` and `exit.json` are written there. `attach` is where
    the monitor listens for attach clients (≤ 107 bytes). With `stdin` the program gets a pipe, else /dev/null;
    `stdin_once` closes it when the first attached client closes its half. With `go` the gate opens as soon as
    it is reached, and `release` only waits. `crew` is a parked one to be used; one that has
    gone, or does not fit, costs only time.
    """

    id: str
    bundle: Path
    attach: Path
    log: LogOptions = field(default_factory=LogOptions)
    stdin: bool = False
    stdin_once: bool = False
    go: bool = False
    crew: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A further program in a running container; its end is written to `<bundle>/exec/<id>.json`.

    `env` is complete (the container's and what was added). `user` is Docker's "name[:group]", "" for the container's own.
    Output goes to clients of `attach` and waits for them; it is thrown away with `detach`, or once all have left. `terminal` gives
    the program one in place of pipes, of `console_size` (height, width; zeros leave it unsaid). A `bound` one ends, with its process
    group, when the one who asked lets go of it or dies.
    """

    id: str
    bundle: Path
    attach: Path
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    detach: bool = False
    no_new_privileges: bool | None = None
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    bound: bool = False
