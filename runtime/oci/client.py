"""The engine's side of the launcher: start it, ask for containers and execs, open their gates, wait for their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.oci.handshake import StartFailed
from runtime.oci.state import ExitRecord

__all__ = ["ExecRequest", "LaunchRequest", "Launched", "LauncherClient", "LogOptions", "StartFailed", "adopt"]


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

    `bundle` holds `config.json` and `root.json`; `log/`, `state.json` and `exit.json` are written there. `attach` is where
    the monitor listens for attach clients (≤ 107 bytes). With `stdin` the program gets a pipe, else /dev/null;
    `stdin_once` closes it when the first attached client closes its half.
    """

    id: str
    bundle: Path
    attach: Path
    log: LogOptions = field(default_factory=LogOptions)
    stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A further program in a running container; its end is written to `<bundle>/exec/<id>.json`.

    `env` is complete (the container's and what was added). `user` is Docker's "name[:group]", "" for the container's own.
    Output goes to clients of `attach` and waits for them; it is thrown away with `detach`, or once all have left.
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


class Launched:
    """A container or exec: made and waiting at its gate, running, or ended. Close it to let go of its descriptors."""

    monitor_pid: int
    monitor_pidfd: int
    init_pid: int
    loop: str

    async def release(self) -> int:
        """Open the gate; returns the start time (ns since 1970) once the program runs. Raises StartFailed."""
        raise NotImplementedError

    async def wait(self) -> ExitRecord:
        """The end: returns when the monitor has gone. If it was killed, ends the container; then code -1, unknown."""
        raise NotImplementedError

    async def abandon(self) -> None:
        """Give up before the gate opened; all that was acquired is undone when this returns."""
        raise NotImplementedError

    async def set_log(self, log: LogOptions) -> None:
        """Change log limits of a running container."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of descriptors; the container lives on."""
        raise NotImplementedError


class LauncherClient:
    """One launcher process, started on demand and again when it dies. For one event loop."""

    def __init__(self, *, log_file: Path | None = None) -> None:
        """`log_file` takes what launcher and monitors say when they fail (default: this process's stderr)."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start the launcher now, to have it warm."""
        raise NotImplementedError

    async def launch(self, request: LaunchRequest) -> Launched:
        """Make a container up to its gate. Raises StartFailed(step, errno, text) with everything undone."""
        raise NotImplementedError

    async def exec(self, request: ExecRequest) -> Launched:
        """Make a further process in a container up to its gate. Raises StartFailed."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the launcher; containers and their monitors live on."""
        raise NotImplementedError


def adopt(request: LaunchRequest | Path) -> Launched | None:
    """The living container of a bundle, None when its monitor has gone (then see `ends.reap_orphan`)."""
    raise NotImplementedError


async def attach_stream(path: Path, *, stdin: bool, stdout: bool, stderr: bool) -> Sequence[object]:
    """Connect to a monitor's attach socket: asyncio (reader, writer), acknowledged, so that nothing after it is missed.

    What is read is Docker's framed stream (byte 0: 1 stdout, 2 stderr; bytes 4 to 7 length, big endian); what is written
    is stdin, closed by `write_eof`.
    """
    raise NotImplementedError
